"""Exceptions with messages for users.

Any other exception that reaches an entry point is a defect of raydec and keeps its traceback.
"""

import errno

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, an exhausted quota, or a file that is too large."""


class UserError(Exception):
    """A mistake that the user can correct; the message names file or key, value, limit and remedy.

    Entry points print it as one line on stderr and exit with status ``exit_status``.
    """

    exit_status = 2


class FailedError(UserError):
    """The request was valid, but the work failed; the message says what to do."""

    exit_status = 1


class TakenOverError(UserError):
    """Another process has taken over the run; a retry would leave two writers."""


class DivergedError(Exception):
    """Training diverged to non-finite values; the message says where, what is kept and what to change.

    Entry points print it as one line on stderr and exit with status 1. A retry would diverge again.
    """


class AudioError(UserError):
    """A file without usable samples.

    Attributes:
        file: the file's name as it was given.
        reason: what is wrong, without the name and short enough for a table.
    """

    def __init__(self, file: str, reason: str) -> None:
        # Pickling an exception, as Ray does, needs all arguments in ``args``.
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"
