"""Decodes any speech file to one channel at one rate; every error names the file and the reason.

Files are decoded, averaged over channels and resampled in blocks, so that memory does not grow with their
length, unless all samples are requested. They are resampled with soxr (HQ), which gives the same samples in
blocks as for the whole. The level is not normalised here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
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
# Float files may hold unscaled integers of up to 32 bits; larger values mean that the file is damaged.
_MAX_PEAK = 2.0**31
# 60 dB: channels that cancel this well in the mean are copies of opposite sign.
_CANCELLED = 1e-3
# Recordings up to this length are decoded once and kept; longer ones are decoded again for every reading.
_KEPT_S = 120.0
_STREAM = "the stream"
_CANCEL_WARNING = "the channels cancel each other; the louder one was used alone"

_Samples = Float32[np.ndarray, "_"]


@runtime_checkable
class BlockResampler(Protocol):
    """Resamples one channel in blocks, with the same result as for the whole."""

    def resample_chunk(self, x: _Samples, last: bool = False) -> _Samples:
        """Add a block; returns the output that is ready, after the last block all that remains."""
        ...


ResamplerFactory = Callable[[int, int], BlockResampler]


def soxr_resampler(rate_in: int, rate: int) -> BlockResampler:
    """The resampler of raydec (soxr, HQ), from ``rate_in`` to ``rate`` Hz."""
    return soxr.ResampleStream(rate_in, rate, 1, dtype="float32", quality="HQ")


@dataclass(frozen=True)
class Recording:
    """A recording that has been read once and can be read again, in little memory whatever its length.

    Attributes:
        path: the file.
        sample_rate: of its samples in Hz.
        levels: number, extremes and mean of its samples.
        warnings: about problems that did not lead to an error; see also ``levels.warnings()``.
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
        """Its samples in blocks of varying length: one channel, at the level of the file.

        Raises:
            AudioError: the file can no longer be read.
        """
        return iter(self._kept) if self._kept is not None else self._way.blocks(_Heard())

    def samples(self) -> _Samples:
        """All of its samples. Four bytes each: 230 MB per hour at 16 kHz.

        Raises:
            AudioError: the file can no longer be read, or has become longer.
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
    """Read a recording once, in blocks, and measure it; the samples of short recordings are kept.

    The result is the mean of the channels; if it cancels (two channels of opposite sign), the louder channel.

    Args:
        path: the file.
        sample_rate: requested rate in Hz.
        segment: the part to read; the result is that of a file with only this part.
        resampler: creates the resampler.

    Raises:
        AudioError: missing, not audio, empty, silent, NaN or infinite samples, or an impossible peak.
    """
    name = os.fspath(path)
    _refuse_non_files(name)
    way = _Way(name, sample_rate, segment, resampler)
    heard, levels, kept = _listen(way)
    if heard.failure:  # the whole block was lost: read again in small blocks, to lose as little as possible
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


def prepare_waveform(
    samples: Num[np.ndarray, " sample"] | Num[np.ndarray, "sample channel"],
    sample_rate_in: int,
    sample_rate: int = SAMPLE_RATE,
    *,
    name: str = "the waveform",
) -> Float32[np.ndarray, " resampled"]:
    """Check, mix down and resample samples in memory, like :func:`load_audio` for a file.

    Args:
        samples: one channel, or one column per channel; any level, any number type.
        sample_rate_in: their rate in Hz.
        sample_rate: requested rate in Hz.
        name: their name in error messages.

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
    """Measurements of one pass over a recording's original samples."""

    rate: int = 0
    num_frames: int = 0
    num_values: int = 0
    num_bad: int = 0
    peaks: Float32[np.ndarray, " channel"] = field(default_factory=lambda: np.zeros(1, np.float32))
    mean_peak: float = 0.0
    failure: str | None = None
    warning: str | None = None

    def mix(self, block: Float32[np.ndarray, "frame channel"], channel: int | None) -> _Samples:
        """Measure a block, and return its mean over channels, or one of its channels."""
        self.num_frames += len(block)
        self.num_values += block.size
        columns = np.ascontiguousarray(block.T)  # NumPy measures rows sixty times as fast
        peaks = _peaks(columns)
        if not np.isfinite(peaks).all():
            self.num_bad += int(block.size - np.isfinite(block).sum())
        self.peaks = np.maximum(self.peaks, peaks)
        if channel is not None:
            return columns[channel].copy()
        is_mono = len(columns) == 1
        mono = columns[0] if is_mono else columns.mean(axis=0, dtype=np.float32)
        self.mean_peak = max(self.mean_peak, float((peaks if is_mono else _peaks(mono[None]))[0]))
        return mono

    @property
    def is_cancelled(self) -> bool:
        """Whether the channels cancel, so that their mean cannot be used."""
        return not self.mean_peak > _CANCELLED * self.peaks.max()

    @property
    def loudest_channel(self) -> int:
        """The channel with the highest peak."""
        return int(self.peaks.argmax())

    def check(self, name: str, segment: Segment) -> None:
        """Refuse unusable samples."""
        if not self.num_values and self.failure:
            raise AudioError(name, self.failure)
        if not self.num_values and segment.start_s:
            raise AudioError(
                name, f"the segment starts at {segment.start_s:g} s, after the end of the recording"
            )
        if not self.num_values:
            raise AudioError(name, "contains no samples")
        if self.num_bad:
            raise AudioError(name, f"{self.num_bad} of {self.num_values} samples are NaN or infinite")
        if self.peaks.max() > _MAX_PEAK:
            raise AudioError(name, f"an impossible peak of {self.peaks.max():.3g}; the file is damaged")
        if self.peaks.max() == 0:
            raise AudioError(name, "silent: every sample is zero")


@dataclass(frozen=True)
class _Way:
    """Parameters for reading a recording, so that it can be read again with the same result."""

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
    """Read a recording; returns measurements, the levels of its samples, and the samples if it is short."""
    heard, meter = _Heard(), LevelMeter(way.sample_rate)
    kept: list[_Samples] | None = []
    for block in way.blocks(heard):
        meter.add(block)
        if kept is not None:
            kept.append(block)
            if meter.count > _KEPT_S * way.sample_rate:
                kept = None
    return heard, meter.levels(), None if kept is None else tuple(kept)


class StreamMixer:
    """Resamples all channels of a stream and mixes windows of it down, as :func:`measure_audio` does a file.

    Whether channels cancel is decided window by window, because later windows are not available yet.

    Args:
        rate_in: rate of the stream in Hz.
        sample_rate: rate wanted, in Hz.
        resampler: makes the resampler of a channel.

    Raises:
        AudioError: an impossible rate.
    """

    def __init__(self, rate_in: int, sample_rate: int, resampler: ResamplerFactory = soxr_resampler) -> None:
        _check_rate(rate_in, _STREAM)
        self._rates = rate_in, sample_rate
        self._new_resampler = resampler
        self._resamplers: list[BlockResampler] = []

    def resampled(
        self, blocks: Iterable[Num[np.ndarray, "_"] | Num[np.ndarray, "_ _"]]
    ) -> Iterator[Float32[np.ndarray, "resampled channel"]]:
        """The stream at the rate wanted.

        Raises:
            AudioError: NaN or infinite samples, an impossible peak, or a changing number of channels.
        """
        num_channels = 0
        for block in blocks:
            columns = (block[:, None] if block.ndim == 1 else block).astype(np.float32)
            if num_channels not in (0, columns.shape[1]):
                raise AudioError(_STREAM, f"changes from {num_channels} to {columns.shape[1]} channels")
            num_channels = columns.shape[1]
            self._check(columns)
            yield self._resample(columns, last=False)
        if num_channels:
            yield self._resample(np.empty((0, num_channels), np.float32), last=True)

    def mixed(self, window: Float32[np.ndarray, "sample channel"]) -> _Samples:
        """One channel of a window: the mean, or the loudest where the mean cancels."""
        heard = _Heard()
        mono = heard.mix(window, None)
        return np.ascontiguousarray(window[:, heard.loudest_channel]) if heard.is_cancelled else mono

    def _check(self, columns: Float32[np.ndarray, "sample channel"]) -> None:
        heard = _Heard()
        heard.mix(columns, None)
        if heard.num_bad or heard.peaks.max() > _MAX_PEAK:
            heard.check(_STREAM, WHOLE)

    def _resample(
        self, columns: Float32[np.ndarray, "sample channel"], *, last: bool
    ) -> Float32[np.ndarray, "resampled channel"]:
        if self._rates[0] == self._rates[1]:
            return columns
        if not self._resamplers:
            self._resamplers = [self._new_resampler(*self._rates) for _ in columns.T]
        channels = zip(self._resamplers, columns.T, strict=True)
        return np.stack(
            [one.resample_chunk(np.ascontiguousarray(channel), last=last) for one, channel in channels],
            axis=1,
        )


def _peaks(columns: Float32[np.ndarray, "channel frame"]) -> Float32[np.ndarray, " channel"]:
    """The largest magnitude of each channel, 0 without frames; NaN or infinite if a sample is."""
    return np.maximum(columns.max(axis=1, initial=0), -columns.min(axis=1, initial=0))


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
        raise AudioError(name, f"silent at {rate} Hz: it contains no sound below {rate // 2} Hz")
