"""Decode any speech file to one channel at one rate; every failure names the file and says why.

soundfile (libsndfile) recognises the format by content, so an MP3 named ``.wav`` decodes. Samples are
averaged over channels and resampled by soxr (HQ). Nothing here normalises the level.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Num

from raydec.errors import AudioError

SAMPLE_RATE = 16_000
_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 1_000_000
# Float files may hold integers up to 32 bits unscaled; anything beyond is damage, not loudness.
_MAX_PEAK = 2.0**31
# 60 dB: channels that cancel this well in the mean are copies of opposite sign.
_CANCELLED = 1e-3
_BLOCK_FRAMES, _FINE_BLOCK_FRAMES = 1 << 14, 1 << 8
_GIT_LFS = b"version https://git-lfs"
# Writers that cannot seek back leave one of these in the header's length field.
_STREAMED_LENGTH = 0x7FFFF000
_OPEN_LENGTH = 1 << 62
# Headers that are wrong by a few bytes, and MP3 lengths, which are estimates, are not worth a warning.
_WHOLE = 0.99


@dataclass(frozen=True)
class DecodedAudio:
    """One decoded file.

    Attributes:
        samples: one channel at the rate asked for, as loud as in the file.
        warnings: what is odd about the file although it was kept.
    """

    samples: Float32[np.ndarray, " sample"]
    warnings: tuple[str, ...] = ()


def load_audio(path: str | Path, sample_rate: int = SAMPLE_RATE) -> Float32[np.ndarray, " sample"]:
    """Decode a file to mono samples at ``sample_rate`` Hz.

    The channels' mean is taken; where it cancels (two channels of opposite sign) the louder channel is.

    Raises:
        AudioError: missing, not audio, empty, silent, NaN or infinite samples, or an impossible peak.
    """
    return decode_audio(path, sample_rate).samples


def decode_audio(path: str | Path, sample_rate: int = SAMPLE_RATE) -> DecodedAudio:
    """Like :func:`load_audio`, with the warnings: data cut short, channels that cancel.

    Raises:
        AudioError: as :func:`load_audio`.
    """
    name = os.fspath(path)
    _refuse_non_audio(name)
    samples, rate, warning = _read_samples(name)
    warnings = [warning] if warning else []
    mono, cancelled = _mix_down(samples, name)
    if cancelled:
        warnings.append("the channels cancel each other; the louder one was used alone")
    return DecodedAudio(_resample(mono, rate, sample_rate, name), tuple(warnings))


def prepare_waveform(
    samples: Num[np.ndarray, " sample"] | Num[np.ndarray, "sample channel"],
    sample_rate_in: int,
    sample_rate: int = SAMPLE_RATE,
    *,
    name: str = "the waveform",
) -> Float32[np.ndarray, " resampled"]:
    """Check, mix down and resample samples that are in memory already, as :func:`load_audio` does a file.

    Args:
        samples: one channel, or one column per channel; any level, any number type.
        sample_rate_in: their rate in Hz.
        sample_rate: the rate wanted in Hz.
        name: what error messages call them.

    Raises:
        AudioError: no samples, silence, NaN or infinite samples, or an impossible rate or peak.
    """
    columns = samples[:, None] if samples.ndim == 1 else samples
    mono, _ = _mix_down(columns.astype(np.float32), name)
    return _resample(mono, sample_rate_in, sample_rate, name)


def _refuse_non_audio(name: str) -> None:
    try:
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(name, "not a regular file")
        if status.st_size == 0:
            raise AudioError(name, "the file is empty (0 bytes)")
        with open(name, "rb") as file:
            head = file.read(len(_GIT_LFS))
    except FileNotFoundError:
        raise AudioError(name, "the file does not exist") from None
    except OSError as error:
        raise AudioError(name, f"cannot be read: {error.strerror or error}") from None
    if head == _GIT_LFS:
        raise AudioError(name, "a Git LFS pointer, not the audio itself; fetch it with 'git lfs pull'")


def _read_samples(name: str) -> tuple[Float32[np.ndarray, "sample channel"], int, str | None]:
    """All samples that can be decoded, their rate, and a warning when the file promised more."""
    try:
        blocks, failure, rate, num_declared = _read_blocks(name, _BLOCK_FRAMES)
        if failure:  # and with it the whole block it fell into: once more, to lose as little as possible
            blocks, failure, rate, num_declared = _read_blocks(name, _FINE_BLOCK_FRAMES)
    except soundfile.LibsndfileError as error:
        raise AudioError(name, _explain(error)) from None
    except (TypeError, ValueError):  # soundfile wants to be told the rate of *.raw
        raise AudioError(name, "headerless raw samples of unknown rate; convert them to WAV") from None
    samples = np.concatenate(blocks)
    if failure and not len(samples):
        raise AudioError(name, failure)
    # libsndfile gives a length past all reason when the header leaves it open.
    declared_share = len(samples) / num_declared if 0 < num_declared < _OPEN_LENGTH else 1.0
    share = min(_wav_data_share(name), declared_share)
    warning = f"cut short: {share:.0%} of the promised samples are there" if share < _WHOLE else failure
    return samples, rate, warning


def _read_blocks(
    name: str, block_frames: int
) -> tuple[list[Float32[np.ndarray, "_ channel"]], str | None, int, int]:
    """Blocks of samples, what stopped the decoder early, the rate, and the promised number of frames."""
    # In blocks, because a damaged header may promise terabytes and a damaged tail must not cost the rest.
    with soundfile.SoundFile(name) as file:
        blocks = [np.empty((0, file.channels), np.float32)]
        failure = None
        try:
            while len(block := file.read(block_frames, dtype="float32", always_2d=True)):
                blocks.append(block)
        except soundfile.LibsndfileError as error:
            failure = _explain(error)
        return blocks, failure, file.samplerate, file.frames


def _explain(error: soundfile.LibsndfileError) -> str:
    message = error.error_string.strip().rstrip(".").removeprefix("Error : ")
    return f"cannot be decoded: {message}"


def _mix_down(
    samples: Float32[np.ndarray, "sample channel"], name: str
) -> tuple[Float32[np.ndarray, " sample"], bool]:
    """One channel, and whether the mean had to be given up because the channels cancel."""
    if not samples.size:
        raise AudioError(name, "holds no samples")
    num_bad = int(samples.size - np.isfinite(samples).sum())
    if num_bad:
        raise AudioError(name, f"{num_bad} of {samples.size} samples are NaN or infinite")
    peaks = np.abs(samples).max(axis=0)
    if peaks.max() > _MAX_PEAK:
        raise AudioError(name, f"a peak of {peaks.max():.3g} is no sound; the file is damaged")
    if peaks.max() == 0:
        raise AudioError(name, "silent: every sample is zero")
    mono = samples.mean(axis=1, dtype=np.float32)
    if np.abs(mono).max() > _CANCELLED * peaks.max():
        return mono, False
    return np.ascontiguousarray(samples[:, peaks.argmax()]), True


def _resample(
    mono: Float32[np.ndarray, " sample"], rate_in: int, rate: int, name: str
) -> Float32[np.ndarray, " resampled"]:
    if not _MIN_RATE_HZ <= rate_in <= _MAX_RATE_HZ:
        limits = f"{_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz"
        raise AudioError(name, f"a sample rate of {rate_in} Hz is outside {limits}; the header is damaged")
    if rate_in == rate:
        return mono
    resampled = soxr.resample(mono, rate_in, rate, quality="HQ")
    if not resampled.size:
        raise AudioError(name, f"{len(mono)} samples at {rate_in} Hz are too few to resample to {rate} Hz")
    if not resampled.any():
        raise AudioError(name, f"silent at {rate} Hz: it holds no sound below {rate // 2} Hz")
    return resampled


def _wav_data_share(name: str) -> float:
    """How much of the data a WAV header promises is in the file; 1 for other and streamed formats.

    libsndfile clips the length to the file without a word, so a file cut short looks like a short one.
    """
    with open(name, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        for chunk, length in _riff_chunks(file, size):
            if chunk == b"data" and 0 < length < _STREAMED_LENGTH:
                return min(1.0, (size - file.tell()) / length)
    return 1.0


def _riff_chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield ``(id, length)`` of each chunk with the file placed at the chunk's first byte."""
    header = file.read(12)
    if header[:4] not in (b"RIFF", b"RIFX") or header[8:] != b"WAVE":
        return
    layout = "<4sI" if header[:4] == b"RIFF" else ">4sI"
    while len(head := file.read(8)) == 8:
        chunk, length = struct.unpack(layout, head)
        start = file.tell()
        yield chunk, length
        if start + length > size:
            return
        file.seek(start + length + length % 2)
