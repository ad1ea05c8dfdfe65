"""The one exception a user is meant to read.

Everything else that escapes is a defect of raydec and keeps its traceback.
"""


class UserError(Exception):
    """A mistake the user can mend: the message names the file or key, the value, the limit and the remedy.

    Entry points print it as one line on stderr and exit with status ``exit_status``.
    """

    exit_status = 2


class FailedError(UserError):
    """The work was asked for correctly, was done, and came to nothing; the message says what to do."""

    exit_status = 1


class TakenOverError(UserError):
    """Another process goes on with the run; trying again would be two that write it."""


class DivergedError(Exception):
    """Training has left the finite numbers; the message says where, what is kept and what to change.

    Entry points print it as one line on stderr and exit with status 1. Trying again would diverge again.
    """


class AudioError(UserError):
    """A file that gives no usable samples.

    Attributes:
        file: the file's name as it was given.
        reason: what is wrong, without the name: short enough for a table.
    """

    def __init__(self, file: str, reason: str) -> None:
        # Both are arguments of the exception, so that it survives pickling on its way out of a worker.
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"
