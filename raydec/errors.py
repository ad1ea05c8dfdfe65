"""The one exception a user is meant to read.

Everything else that escapes is a defect of raydec and keeps its traceback.
"""


class UserError(Exception):
    """A mistake the user can mend: the message names the file or key, the value, the limit and the remedy.

    Entry points print it as one line on stderr and exit with status 2.
    """


class TakenOverError(UserError):
    """Another process goes on with the run; trying again would be two that write it."""
