"""Storage locations, local or remote, and readable messages for their errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from raydec.errors import UserError

CHECKPOINT_FOLDER = "checkpoints"
"""Folder of the checkpoints in a run's directory."""

# Errors that a user can fix, and how.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or raise the quota",
    errno.EFBIG: "use storage that supports larger files",
    errno.EROFS: "make it writable",
    errno.EACCES: "give this user permission to write",
    errno.EPERM: "give this user permission to write",
    errno.EIO: "check the device",
    errno.ENOTCONN: "mount it again",
    errno.ESTALE: "mount it again",
    errno.ENODEV: "mount it again",
}
# The error number in the messages of Python, pyarrow and safetensors.
_NUMBER = re.compile(r"(?:\[errno |\(os error |os \{ code: )(\d+)", re.IGNORECASE)


def is_uri(location: str) -> bool:
    """Whether a location is a URI, not a path on this machine."""
    return "://" in location


def one_line(error: BaseException) -> str:
    """An error's message in one line, cut to 200 characters, to be appended to another message."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def storage_problem(error: BaseException, location: str) -> UserError | None:
    """The storage error that caused an exception, in one line; None if there is none.

    Args:
        error: the exception; its causes are searched too.
        location: the run's directory.
    """
    seen: BaseException | None = error
    while seen is not None:
        number = _error_number(seen)
        if number in _REMEDIES:
            place = seen.filename if isinstance(seen, OSError) and seen.filename else None
            where = location if place is None else f"{place}, for {location}"
            return UserError(
                f"cannot use {where}: {os.strerror(number)}; the last checkpoint is kept: "
                f"{_REMEDIES[number]} and run the same command again"
            )
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


@contextmanager
def storage_explained(location: str) -> Iterator[None]:
    """Convert an exception that was caused by a storage error into a :class:`UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        problem = storage_problem(error, location)
        if problem is None:
            raise
        raise problem from error


def _error_number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
        return None
    found = _NUMBER.search(str(error))
    return int(found.group(1)) if found else None
