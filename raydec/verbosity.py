"""How much a person wants to read; below everything, because every room may log."""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass
class _Verbosity:
    """How much a person wants to read: -1 with ``-q``, 1 with ``-v``."""

    level: int = 0


_verbosity = _Verbosity()


def set_verbosity(level: int) -> None:
    """Say how much is printed from now on.

    Args:
        level: negative: results and problems only, no progress; 0: as designed; positive: raydec's own log
            and what else explains a number, Ray's warnings too.
    """
    _verbosity.level = level
    own = logging.getLogger("raydec")
    own.setLevel(logging.ERROR if level < 0 else logging.INFO if level > 0 else logging.NOTSET)


def verbosity() -> int:
    """What :func:`set_verbosity` was told."""
    return _verbosity.level
