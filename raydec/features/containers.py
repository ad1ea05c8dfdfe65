"""Reads position and length of the samples from the headers of audio files.

libsndfile silently clips the length in a header to the size of the file, so it does not detect truncated
files; and if a recorder never wrote the length (0), it reads an empty recording. Both are detected here.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

# Writers that cannot seek write 0xFFFFFFFF, 0x7FFFFFFF or 0x7FFFF000 as the length.
_STREAMED_LENGTH = 0x7FFFF000
_OGG_PAGE = 65_307  # bytes, at most
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass(frozen=True)
class SampleData:
    """The bytes of samples in a container.

    Attributes:
        start: offset of the samples in the file.
        available: number of bytes from there to the end of the file.
        promised: number of bytes according to the header; None if it gives no length.
        field: offset of the length field.
        layout: format of the length field, for :mod:`struct`.
        extra: number of further bytes that the length includes.
    """

    start: int
    available: int
    promised: int | None
    field: int
    layout: str
    extra: int = 0

    @property
    def share(self) -> float:
        """Share of the promised bytes that the file has, at most 1."""
        return min(1.0, self.available / self.promised) if self.promised else 1.0


def find_samples(file: BinaryIO) -> SampleData | None:
    """The samples of a WAV, RF64, Wave64, AIFF, 8SVX, CAF, AU or NIST file; None for anything else."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(40)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _riff(file, size, ">" if head[:4] == b"RIFX" else "<")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        return _form(file, size)
    if head[:4] == b"caff":
        return _caf(file, size)
    if head[:4] in (b".snd", b"dns."):
        return _au(head, size)
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _wave64(file, size)
    return _nist(file, size) if head[:7] == b"NIST_1A" else None


def with_length(file: BinaryIO) -> io.RawIOBase | None:
    """The same file with its actual length, if libsndfile would not read it otherwise; else None.

    This is needed if the header has no length although samples follow, and for truncated CAF files.
    """
    data = find_samples(file)
    if data is None or not data.available:
        return None
    is_cut_caf = data.layout == ">q" and data.share < 1
    if not is_cut_caf and (data.promised != 0 or _is_chunks(file, data)):
        return None
    length = struct.pack(data.layout, data.available + data.extra)
    return _Patched(file, data.field, length)


def ogg_end_missing(file: BinaryIO) -> bool:
    """Whether an Ogg file lacks the last page of its stream, or part of it."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return False
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2 * _OGG_PAGE))
    tail = file.read()
    place = tail.rfind(b"OggS\0")
    if place < 0 or len(tail) < place + 27:
        return True
    is_last, num_lengths = tail[place + 5] & 4, tail[place + 26]
    body = place + 27 + num_lengths
    return not is_last or len(tail) < body + sum(tail[place + 27 : body])


def _chunks(
    file: BinaryIO, start: int, size: int, layout: str, align: int = 2
) -> Iterator[tuple[bytes, int, int]]:
    """Yield ``(id, length, start of content)`` of each chunk."""
    head_bytes = struct.calcsize(layout)
    while start + head_bytes <= size:
        file.seek(start)
        name, length = struct.unpack(layout, file.read(head_bytes))
        yield name, length, start + head_bytes
        start += head_bytes + length + -length % align


def _riff(file: BinaryIO, size: int, order: str) -> SampleData | None:
    long_length = None
    for name, length, start in _chunks(file, 12, size, f"{order}4sI"):
        if name == b"ds64":
            file.seek(start + 8)
            long_length = (struct.unpack("<Q", file.read(8))[0], start + 8)
        if name == b"data" and long_length and length == 0xFFFFFFFF:
            return SampleData(start, size - start, long_length[0], long_length[1], "<Q")
        if name == b"data":
            promised = None if length >= _STREAMED_LENGTH else length
            return SampleData(start, size - start, promised, start - 4, f"{order}I")
    return None


def _form(file: BinaryIO, size: int) -> SampleData | None:
    for name, length, start in _chunks(file, 12, size, ">4sI"):
        if name == b"SSND":  # its content begins with an offset and a block size
            promised = max(length - 8, 0) if length < _STREAMED_LENGTH else None
            return SampleData(start + 8, max(size - start - 8, 0), promised, start - 4, ">I", 8)
        if name == b"BODY":
            return SampleData(start, size - start, length, start - 4, ">I")
    return None


def _caf(file: BinaryIO, size: int) -> SampleData | None:
    for name, length, start in _chunks(file, 8, size, ">4sq", align=1):
        if name == b"data":  # its content begins with a count of edits
            # An unfinished recording has the length -1, which libsndfile does not read.
            promised = max(length - 4, 0)
            return SampleData(start + 4, max(size - start - 4, 0), promised, start - 8, ">q", 4)
        if length < 0:
            break
    return None


def _au(head: bytes, size: int) -> SampleData | None:
    order = ">" if head[:4] == b".snd" else "<"
    if len(head) < 12:
        return None
    start, promised = struct.unpack(f"{order}II", head[4:12])
    return SampleData(
        start,
        max(size - start, 0),
        None if promised >= _STREAMED_LENGTH else promised,
        8,
        f"{order}I",
    )


def _wave64(file: BinaryIO, size: int) -> SampleData | None:
    for name, length, start in _chunks_of_wave64(file, size):
        if name == _W64_DATA:
            return SampleData(start, size - start, max(length - 24, 0), start - 8, "<Q", 24)
    return None


def _chunks_of_wave64(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    start = 40
    while start + 24 <= size:
        file.seek(start)
        name, length = struct.unpack("<16sQ", file.read(24))
        yield name, length, start + 24
        # Lengths include their own 24 bytes, and chunks are aligned to 8.
        start += max(length + -length % 8, 24)


def _nist(file: BinaryIO, size: int) -> SampleData | None:
    file.seek(0)
    lines = file.read(4096).split(b"\n")
    try:
        start = int(lines[1])
        values = {words[0]: words[2] for words in map(bytes.split, lines[2:]) if len(words) == 3}
        channels = int(values.get(b"channel_count", b"1"))
        promised = int(values[b"sample_count"]) * channels * int(values[b"sample_n_bytes"])
    except (IndexError, KeyError, ValueError):
        return None
    if values.get(b"sample_coding", b"pcm") not in (b"pcm", b"ulaw", b"alaw"):
        return None  # compressed, so the number of bytes is unknown
    return SampleData(start, max(size - start, 0), promised or None, 0, "")


def _is_chunks(file: BinaryIO, data: SampleData) -> bool:
    """Whether the header is followed by other chunks, so that the recording is really empty."""
    if data.layout not in ("<I", ">I"):
        return False
    size, end = data.start + data.available, data.start
    for name, length, start in _chunks(file, data.start, size, f"{data.layout[0]}4sI"):
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        end = start + length + length % 2
    return end in (size, size + 1)


class _Patched(io.RawIOBase):
    """A file of which a few bytes are replaced when it is read."""

    def __init__(self, file: BinaryIO, place: int, content: bytes) -> None:
        self._file, self._place, self._content = file, place, content
        file.seek(0)

    def readinto(self, buffer: Any) -> int:
        start, view = self._file.tell(), memoryview(buffer).cast("B")
        data = self._file.read(len(view))
        view[: len(data)] = data
        for i, byte in enumerate(self._content, self._place - start):
            if 0 <= i < len(data):
                view[i] = byte
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
