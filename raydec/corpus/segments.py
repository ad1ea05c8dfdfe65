"""Segments of recordings, and parsing of the times in tables.

Used by the corpus readers and for the lists of files that ``predict`` takes.
"""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, NamedTuple

# Spellings of a missing time.
_NO_TIME = frozenset({"", "-", "nan", "na", "n/a", "<na>", "nat", "none", "null"})
_CLOCK = re.compile(r"(?:(\d+) days? ?)?(?:(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?))?", re.IGNORECASE)


class Segment(NamedTuple):
    """Part of a recording.

    Attributes:
        start_s: its start in seconds.
        end_s: its end in seconds; None means the end of the recording.
    """

    start_s: float = 0.0
    end_s: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole recording."""
        return self.start_s == 0 and self.end_s is None

    def frames(self, rate: int) -> tuple[int, int | None]:
        """The first frame at ``rate`` Hz and the one after the last; None means up to the end."""
        return round(self.start_s * rate), None if self.end_s is None else round(self.end_s * rate)

    def name_in(self, file: str) -> str:
        """The utterance's name: ``a.wav[1.5-3.25]``, ``a.wav[2-]``, or ``a.wav`` for the whole recording."""
        if self.is_whole:
            return file
        return f"{file}[{_short(self.start_s)}-{'' if self.end_s is None else _short(self.end_s)}]"


WHOLE = Segment()


def segment_of(start: Any, end: Any, duration: Any = None) -> Segment:
    """The segment given by the cells of a row; empty cells mean the start or end of the recording.

    Args:
        start: cell with the start; see :func:`seconds_of`.
        end: cell with the end.
        duration: cell with the length, used if a row has a start but no end.

    Raises:
        ValueError: a cell is not a time, or the segment ends before it starts.
    """
    start_s, end_s = _time("start", start), _time("end", end)
    if start_s is not None and end_s is None:
        length_s = _time("duration", duration)
        end_s = None if length_s is None else start_s + length_s
    start_s = start_s or 0.0
    if end_s is not None and end_s <= start_s:
        raise ValueError(f"the segment ends at {_short(end_s)} s, but starts at {_short(start_s)} s")
    return Segment(start_s, end_s)


def seconds_of(cell: Any) -> float | None:
    """A time in seconds: a number, ``00:01.5``, ``01:02:03``, ``0 days 00:00:01.5``, or a time difference.

    Args:
        cell: text, a number (seconds), or a ``timedelta`` of Python, NumPy or pandas.

    Returns:
        None if the cell is empty or a missing value such as ``NaT``.

    Raises:
        ValueError: the cell is not a time, or the time is negative or infinite.
    """
    value = _clock(cell) if isinstance(cell, str) else _number(cell)
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(cell)
    return value


def _time(name: str, cell: Any) -> float | None:
    try:
        return seconds_of(cell)
    except ValueError:
        raise ValueError(
            f"{name} {cell!r} is neither a time in seconds nor one like 0 days 00:00:01.5"
        ) from None


def _number(cell: Any) -> float | None:
    if cell is None:
        return None
    if isinstance(cell, datetime.timedelta):  # pandas' NaT is not a timedelta
        return cell.total_seconds()
    if isinstance(cell, datetime.time):
        return cell.hour * 3600 + cell.minute * 60 + cell.second + cell.microsecond / 1e6
    if isinstance(cell, (bool, dict, list)):
        raise ValueError(cell)
    if hasattr(cell, "dtype") and cell.dtype.kind == "m":
        cell = cell.astype("timedelta64[ns]").astype("int64") / 1e9 if cell == cell else math.nan
    try:
        value = float(cell)
    except TypeError:
        if cell != cell:  # NaT
            return None
        raise ValueError(cell) from None
    return None if math.isnan(value) else value


def _clock(text: str) -> float | None:
    text = text.strip()
    if text.casefold() in _NO_TIME:
        return None
    match = _CLOCK.fullmatch(text)
    if match is None:
        if "_" in text:  # Python reads 1_0 as 10
            raise ValueError(text)
        value = float(text.replace(",", ".") if "." not in text else text)
        return None if math.isnan(value) else value
    days, hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _short(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
