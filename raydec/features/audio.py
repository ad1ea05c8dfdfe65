"""Decode any speech file to one channel at one rate; every failure names the file and says why.

Files are decoded, averaged over channels and resampled in blocks, so that memory does not grow with their
length unless all samples are asked for. soxr (HQ) resamples: in blocks it gives the very samples that it
gives for the whole. Nothing here normalises the level.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import soxr
from jaxtyping import Float32, Num

from raydec.corpus.segments import WHOLE, Segment
from raydec.errors import AudioError
from raydec.features.decoders import BLOCK_FRAMES, FINE_BLOCK_FRAMES, open_decoder
from raydec.features.levels import LevelMeter, Levels

SAMPLE_RATE = 16_000
_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 1_000_000
# Float files may hold integers up to 32 bits unscaled; anything beyond is damage, not loudness.
_MAX_PEAK = 2.0**31
# 60 dB: channels that cancel this well in the mean are copies of opposite sign.
_CANCELLED = 1e-3
# Recordings up to this long are decoded once and kept; longer ones are decoded again when they are read.
_KEPT_S = 120.0
_CANCEL_WARNING = "the channels cancel each other; the louder one was used alone"

_Samples = Float32[np.ndarray, "_"]


@runtime_checkable
class BlockResampler(Protocol):
    """Resamples one channel that comes in blocks; together they give what the whole would give."""

    def resample_chunk(self, x: _Samples, last: bool = False) -> _Samples:
        """What can be given after the next block; everything that is left after the last."""
        ...


ResamplerFactory = Callable[[int, int], BlockResampler]


def soxr_resampler(rate_in: int, rate: int) -> BlockResampler:
    """The resampler of raydec (soxr, HQ), from ``rate_in`` to ``rate`` Hz."""
    return soxr.ResampleStream(rate_in, rate, 1, dtype="float32", quality="HQ")


@dataclass(frozen=True)
class DecodedAudio:
    """One decoded file.

    Attributes:
        samples: one channel at the rate asked for, as loud as in the file.
        warnings: what is odd about the file although it was kept.
    """

    samples: _Samples
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """A recording that has been read once, whatever its length; reading it again takes little memory.

    Attributes:
        path: the file.
        sample_rate: of its samples in Hz.
        levels: number, extremes and mean of its samples.
        warnings: what is odd about the file although it can be used. ``levels.warnings()`` has more.
    """

    path: str
    sample_rate: int
    levels: Levels
    warnings: tuple[str, ...]
    _way: _Way
    _kept: tuple[_Samples, ...] | None

    @property
    def is_kept(self) -> bool:
        """Whether its samples are in memory."""
        return self._kept is not None

    def blocks(self) -> Iterator[_Samples]:
        """Its samples in blocks of no fixed length: one channel, as loud as in the file.

        Raises:
            AudioError: the file cannot be read any more.
        """
        return iter(self._kept) if self._kept is not None else self._way.blocks(_Heard())

    def samples(self) -> _Samples:
        """All of its samples. Four bytes each: 230 MB per hour at 16 kHz.

        Raises:
            AudioError: the file cannot be read any more, or has become longer.
        """
        samples, place = np.empty(self.levels.num_samples, np.float32), 0
        for block in self.blocks():
            if place + len(block) > len(samples):
                raise AudioError(self.path, "has changed while it was read; run again")
            samples[place : place + len(block)] = block
            place += len(block)
        return samples


def measure_audio(
    path: str | Path,
    sample_rate: int = SAMPLE_RATE,
    segment: Segment = WHOLE,
    *,
    resampler: ResamplerFactory = soxr_resampler,
) -> Recording:
    """Read a recording once, in blocks, and keep what is known of it; short ones are kept whole.

    The channels' mean is taken; where it cancels (two channels of opposite sign) the louder channel is.

    Args:
        path: the file.
        sample_rate: wanted, in Hz.
        segment: the part of it that is meant: what comes out is what a file with only that part would give.
        resampler: makes the resampler.

    Raises:
        AudioError: missing, not audio, empty, silent, NaN or infinite samples, or an impossible peak.
    """
    name = os.fspath(path)
    _refuse_non_files(name)
    way = _Way(name, sample_rate, segment, resampler)
    heard, levels, kept = _listen(way)
    if heard.failure:  # and with it the whole block it fell into: once more, to lose as little as possible
        way = replace(way, block_frames=FINE_BLOCK_FRAMES)
        heard, levels, kept = _listen(way)
    heard.check(name, segment)
    warnings = [heard.warning] if heard.warning else []
    if heard.is_cancelled:
        way = replace(way, channel=heard.loudest_channel)
        _, levels, kept = _listen(way)
        warnings.append(_CANCEL_WARNING)
    _check_resampled(levels, heard.num_frames, heard.rate, sample_rate, name)
    return Recording(name, sample_rate, levels, tuple(warnings), way, kept)


def load_audio(
    path: str | Path, sample_rate: int = SAMPLE_RATE, segment: Segment = WHOLE
) -> Float32[np.ndarray, " sample"]:
    """Decode a file, or a segment of one, to mono samples at ``sample_rate`` Hz.

    Raises:
        AudioError: as :func:`measure_audio`.
    """
    return measure_audio(path, sample_rate, segment).samples()


def decode_audio(path: str | Path, sample_rate: int = SAMPLE_RATE, segment: Segment = WHOLE) -> DecodedAudio:
    """Like :func:`load_audio`, with the warnings: data cut short, channels that cancel.

    Raises:
        AudioError: as :func:`measure_audio`.
    """
    recording = measure_audio(path, sample_rate, segment)
    return DecodedAudio(recording.samples(), recording.warnings)


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
    columns = (samples[:, None] if samples.ndim == 1 else samples).astype(np.float32)
    heard = _Heard(rate=sample_rate_in)
    mono = heard.mix(columns, None)
    heard.check(name, WHOLE)
    if heard.is_cancelled:
        mono = np.ascontiguousarray(columns[:, heard.loudest_channel])
    _check_rate(sample_rate_in, name)
    if sample_rate_in == sample_rate:
        return mono
    resampled = soxr.resample(mono, sample_rate_in, sample_rate, quality="HQ")
    meter = LevelMeter(sample_rate)
    meter.add(resampled)
    _check_resampled(meter.levels(), len(mono), sample_rate_in, sample_rate, name)
    return resampled


@dataclass
class _Heard:
    """What one pass over a recording's own samples has found."""

    rate: int = 0
    num_frames: int = 0
    num_values: int = 0
    num_bad: int = 0
    peaks: Float32[np.ndarray, " channel"] = field(default_factory=lambda: np.zeros(1, np.float32))
    mean_peak: float = 0.0
    failure: str | None = None
    warning: str | None = None

    def mix(self, block: Float32[np.ndarray, "frame channel"], channel: int | None) -> _Samples:
        """Take note of a block, and give its mean over channels, or one of them."""
        self.num_frames += len(block)
        self.num_values += block.size
        self.num_bad += int(block.size - np.isfinite(block).sum())
        self.peaks = np.maximum(self.peaks, np.abs(block).max(axis=0, initial=0))
        if channel is not None:
            return np.ascontiguousarray(block[:, channel])
        mono = block.mean(axis=1, dtype=np.float32)
        self.mean_peak = max(self.mean_peak, float(np.abs(mono).max(initial=0)))
        return mono

    @property
    def is_cancelled(self) -> bool:
        """Whether the mean has to be given up because the channels cancel."""
        return not self.mean_peak > _CANCELLED * self.peaks.max()

    @property
    def loudest_channel(self) -> int:
        """The channel with the highest peak."""
        return int(self.peaks.argmax())

    def check(self, name: str, segment: Segment) -> None:
        """Refuse samples of which nothing can be made."""
        if not self.num_values and self.failure:
            raise AudioError(name, self.failure)
        if not self.num_values and segment.start_s:
            raise AudioError(name, f"the segment starts at {segment.start_s:g} s, where it has ended already")
        if not self.num_values:
            raise AudioError(name, "holds no samples")
        if self.num_bad:
            raise AudioError(name, f"{self.num_bad} of {self.num_values} samples are NaN or infinite")
        if self.peaks.max() > _MAX_PEAK:
            raise AudioError(name, f"a peak of {self.peaks.max():.3g} is no sound; the file is damaged")
        if self.peaks.max() == 0:
            raise AudioError(name, "silent: every sample is zero")


@dataclass(frozen=True)
class _Way:
    """How a recording is read: enough to read it again, to the same samples."""

    name: str
    sample_rate: int
    segment: Segment
    resampler: ResamplerFactory
    channel: int | None = None
    block_frames: int = BLOCK_FRAMES

    def blocks(self, heard: _Heard) -> Iterator[_Samples]:
        with open_decoder(self.name, self.segment, self.block_frames) as decoder:
            heard.rate = decoder.rate
            _check_rate(decoder.rate, self.name)
            resampler = (
                None if decoder.rate == self.sample_rate else self.resampler(decoder.rate, self.sample_rate)
            )
            for block in decoder.blocks():
                mono = heard.mix(block, self.channel)
                yield mono if resampler is None else resampler.resample_chunk(mono)
            if resampler is not None:
                yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
            heard.failure, heard.warning = decoder.failure, decoder.warning(heard.num_frames)


def _listen(way: _Way) -> tuple[_Heard, Levels, tuple[_Samples, ...] | None]:
    """Read a recording: what was heard, the levels of its samples, and the samples themselves if few."""
    heard, meter = _Heard(), LevelMeter(way.sample_rate)
    kept: list[_Samples] | None = []
    for block in way.blocks(heard):
        meter.add(block)
        if kept is not None:
            kept.append(block)
            if meter.count > _KEPT_S * way.sample_rate:
                kept = None
    return heard, meter.levels(), None if kept is None else tuple(kept)


def _refuse_non_files(name: str) -> None:
    try:
        status = os.stat(name)
    except FileNotFoundError:
        raise AudioError(name, "the file does not exist") from None
    except OSError as error:
        raise AudioError(name, f"cannot be read: {error.strerror or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(name, "not a regular file")
    if status.st_size == 0:
        raise AudioError(name, "the file is empty (0 bytes)")


def _check_rate(rate: int, name: str) -> None:
    if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ:
        limits = f"{_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz"
        raise AudioError(name, f"a sample rate of {rate} Hz is outside {limits}; the header is damaged")


def _check_resampled(levels: Levels, num_frames: int, rate_in: int, rate: int, name: str) -> None:
    if not levels.num_samples:
        raise AudioError(name, f"{num_frames} samples at {rate_in} Hz are too few to resample to {rate} Hz")
    if not levels.peak > 0:
        raise AudioError(name, f"silent at {rate} Hz: it holds no sound below {rate // 2} Hz")
