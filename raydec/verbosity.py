"""The verbosity of the process, in a module that every package can import."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Verbosity:
    """The level: -1 with ``-q``, 1 with ``-v``, else 0."""

    level: int = 0


_verbosity = _Verbosity()


def set_verbosity(level: int) -> None:
    """Set how much is printed.

    Args:
        level: negative: only results and problems, no progress; 0: the default; positive: also raydec's log,
            timings and Ray's warnings.
    """
    _verbosity.level = level
    own = logging.getLogger("raydec")
    own.setLevel(logging.ERROR if level < 0 else logging.INFO if level > 0 else logging.NOTSET)


@contextmanager
def silenced(name: str, level: int) -> Iterator[None]:
    """Within the block, suppress warnings, and messages of a library's logger below a level."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def verbosity() -> int:
    """The level set by :func:`set_verbosity`."""
    return _verbosity.level
