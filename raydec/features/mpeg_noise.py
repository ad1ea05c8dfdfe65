"""Keep libmpg123's own messages off the terminal.

libsndfile decodes MP3 with libmpg123, which writes lines such as ``[src/libmpg123/layer3.c…] error`` and
``Note: Trying to resync...`` to the process's standard error, without the name of a file. Here standard error
is redirected while the library is called; other messages in that time are passed on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_BEGINNINGS = (b"Note: Illegal Audio-MPEG-Header", b"Note: Trying to resync", b"Note: Skipped ")
_STDERR = 2


def is_mpeg_audio(file: BinaryIO) -> bool:
    """Whether a file starts like MP3: with an ID3 tag or the synchronisation bits of a frame."""
    file.seek(0)
    start = file.read(3)
    return start == b"ID3" or (len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0)


class MpegNoise:
    """Notices whether libmpg123 printed messages during calls made within :meth:`silenced`.

    Args:
        is_needed: whether the file is MP3; otherwise nothing is redirected.

    Attributes:
        was_heard: whether it printed messages.
    """

    def __init__(self, is_needed: bool) -> None:
        self._is_needed = is_needed
        self.was_heard = False

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Redirect standard error while the block runs."""
        if not self._is_needed:
            yield
            return
        try:
            terminal = os.dup(_STDERR)
        except OSError:  # a process without standard error has nothing to redirect
            yield
            return
        with os.fdopen(os.memfd_create("raydec-stderr"), "r+b") as written:
            os.dup2(written.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(terminal, _STDERR)
                os.close(terminal)
                written.seek(0)
                lines = written.read().splitlines(keepends=True)
                others = [line for line in lines if line.strip() and not _is_noise(line)]
                self.was_heard |= any(map(_is_noise, lines))
                if others:
                    os.write(_STDERR, b"".join(others))


def _is_noise(line: bytes) -> bool:
    return b"libmpg123" in line or line.startswith(_BEGINNINGS)
