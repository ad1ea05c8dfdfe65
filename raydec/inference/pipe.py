"""Audio from a pipe to rows that appear while it runs: ``ffmpeg ... | raydec predict MODEL -``."""

from __future__ import annotations

import csv
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO, runtime_checkable

import numpy as np
from jaxtyping import Float32

from raydec.errors import UserError
from raydec.inference.prediction import Predictor, WindowPrediction
from raydec.inference.rows import result_schema

_FILE = "-"
_REMEDY = "send WAV, as ffmpeg does with -f wav -"
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# Writers that cannot seek back leave one of these, or 0, in the header's length field.
_STREAMED_LENGTH = 0x7FFFF000
_FRAMES_PER_BLOCK = 4096


@runtime_checkable
class Readable(Protocol):
    """Bytes that are read from the beginning to the end."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer at the end only."""
        ...


class WavStream(NamedTuple):
    """A WAV file that is still being written.

    Attributes:
        sample_rate: in Hz.
        blocks: its samples in the order of their arrival; full scale is 1.
    """

    sample_rate: int
    blocks: Iterator[Float32[np.ndarray, "frame channel"]]


def read_wav_stream(file: Readable) -> WavStream:
    """Read a WAV header, and samples on demand; the length may be unknown and unlimited.

    Raises:
        UserError: something else, or samples in a format other than PCM and float.
    """
    head = file.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        what = "is empty" if not head else "is not WAV audio"
        raise UserError(f"standard input {what}; {_REMEDY}")
    form: tuple[int, int, int, int] | None = None
    while len(chunk := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data" and form is not None:
            kind, num_channels, rate, bits = form
            limit = length if 0 < length < _STREAMED_LENGTH else None
            return WavStream(rate, _blocks(file, _decoder(kind, bits), num_channels, bits // 8, limit))
        content = file.read(length + length % 2)
        if name == b"fmt " and length >= 16:
            kind, num_channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            if kind == _EXTENSIBLE and length >= 26:
                kind = struct.unpack("<H", content[24:26])[0]
            form = kind, num_channels, rate, bits
    raise UserError(f"standard input ends before its samples; {_REMEDY}")


Decode = Callable[[bytes], Float32[np.ndarray, " value"]]


def _decoder(kind: int, bits: int) -> Decode:
    if kind == _PCM and bits == 8:
        return lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if kind == _PCM and bits == 24:
        return _int24
    types = {(_PCM, 16): "<i2", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8"}
    if (kind, bits) not in types:
        raise UserError(f"standard input: WAV of format {kind} with {bits} bits; {_REMEDY}")
    scale = 2.0 ** (bits - 1) if kind == _PCM else 1.0
    return lambda data: (np.frombuffer(data, types[kind, bits]) / scale).astype(np.float32)


def _int24(data: bytes) -> Float32[np.ndarray, " value"]:
    padded = np.zeros((len(data) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return (padded.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


def _blocks(
    file: Readable, decode: Decode, num_channels: int, width: int, limit: int | None
) -> Iterator[Float32[np.ndarray, "frame channel"]]:
    frame = num_channels * width
    left = limit
    while data := file.read(
        _FRAMES_PER_BLOCK * frame if left is None else min(_FRAMES_PER_BLOCK * frame, left)
    ):
        left = None if left is None else left - len(data)
        yield decode(data[: len(data) // frame * frame]).reshape(-1, num_channels)


def predict_pipe(
    predictor: Predictor,
    file: Readable,
    out: TextIO,
    *,
    window_s: float,
    hop_s: float | None = None,
    clip: tuple[float, float] | None = None,
) -> int:
    """Write a row of comma-separated values for each window of a WAV stream, as soon as it is complete.

    Args:
        predictor: a loaded model.
        file: WAV audio.
        out: where the rows go.
        window_s: length of a window in seconds.
        hop_s: seconds from the start of one window to that of the next; default: ``window_s``.
        clip: limit scores to this range.

    Returns:
        The number of rows.

    Raises:
        UserError: the input is not a WAV stream, or is damaged.
    """
    stream = read_wav_stream(file)
    writer = csv.writer(out, lineterminator="\n")
    names = result_schema(predictor).names
    writer.writerow(names)
    num_rows = 0
    for window in predictor.stream(stream.blocks, stream.sample_rate, window_s=window_s, hop_s=hop_s):
        row = _row(predictor, window, clip)
        writer.writerow([row.get(name) for name in names])
        out.flush()
        num_rows += 1
    return num_rows


def _row(
    predictor: Predictor, window: WindowPrediction, clip: tuple[float, float] | None
) -> dict[str, object]:
    scores = dict(window.scores)
    if clip is not None and scores:
        scores |= {name: min(max(scores[name], clip[0]), clip[1]) for name in predictor.attributes}
    row: dict[str, object] = {"file": _FILE, "start": window.start, "end": window.end, "error": window.error}
    return row | scores | window.classes | {"cluster": window.cluster}


def open_new(path: Path, *, restart: bool) -> TextIO:
    """A text file for rows, each of which is written at once.

    Raises:
        UserError: it exists, cannot be written, or its name is not that of a CSV file.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"--out {path}: rows of a pipe come one by one; let the name end in .csv")
    try:
        return path.open("w" if restart else "x", encoding="utf-8", newline="")
    except FileExistsError:
        raise UserError(f"{path} exists already; add --restart to replace it") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
