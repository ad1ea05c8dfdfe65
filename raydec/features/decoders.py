"""Decoders: they read a file, or a segment of one, as blocks of samples of all channels at its own rate.

libsndfile (soundfile) recognises formats by content, so an MP3 named ``.wav`` can be decoded. Other formats
are decoded with FFmpeg if PyAV is installed (the extra ``ffmpeg``). PyAV is used instead of torchcodec,
because its wheels include FFmpeg; torchcodec needs FFmpeg from the system, and a specific version for each
torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
import soundfile
from jaxtyping import Float32

from raydec.corpus.segments import Segment
from raydec.errors import AudioError
from raydec.features.containers import find_samples, ogg_end_missing, with_length
from raydec.features.file_kinds import FileKind, ffmpeg_is_installed, file_kind
from raydec.features.mpeg_noise import MpegNoise, is_mpeg_audio

BLOCK_FRAMES, FINE_BLOCK_FRAMES = 1 << 17, 1 << 8
# libsndfile gives a huge length if the header has none.
_OPEN_LENGTH = 1 << 62
# Lossy decoders depend on previous frames, so they have to start a little earlier.
_LOSSY = ("MP3", "OPUS")
# No warning for headers that are wrong by a few bytes, and for MP3 lengths, which are estimates.
_WHOLE = 0.99
_DAMAGED_MPEG = "its MP3 data are damaged in places; the decoder repaired or skipped them"
_NO_LENGTH = "its header gives no length: the recorder never finished it; it was read to the end"

Block = Float32[np.ndarray, "_ channel"]


@runtime_checkable
class Decoder(Protocol):
    """A file being decoded.

    Attributes:
        rate: sample rate of the file in Hz.
        failure: the error that stopped :meth:`blocks` early; None if there was none.
    """

    rate: int
    failure: str | None

    def blocks(self) -> Iterator[Block]:
        """The samples of the segment, from its start; may be called only once."""
        ...

    def warning(self, num_frames: int) -> str | None:
        """A warning about the file, given the number of frames of the segment that could be decoded."""
        ...


@contextmanager
def open_decoder(name: str, segment: Segment, block_frames: int = BLOCK_FRAMES) -> Iterator[Decoder]:
    """Open a file for decoding.

    Args:
        name: the file.
        segment: the part of it to decode.
        block_frames: maximal number of frames per block.

    Raises:
        AudioError: it cannot be read, or its format cannot be decoded here; the message names the format.
    """
    with _opened(name) as file:
        kind, why_not = None, ""
        noise = MpegNoise(is_mpeg_audio(file))
        try:
            patched = with_length(file)
            with noise.silenced():
                sound = soundfile.SoundFile(patched or name)
        except soundfile.LibsndfileError as error:
            kind = file_kind(name)
            why_not = _why_not(kind, error)
            if kind is None or not (kind.by_ffmpeg and ffmpeg_is_installed()):
                raise AudioError(name, why_not) from None
        except (TypeError, ValueError):  # soundfile needs the rate of *.raw as an argument
            raise AudioError(name, _why_not(file_kind(name), None)) from None
        if kind is not None:
            with _ffmpeg_decoder(name, segment, why_not if not kind.name else "") as decoder:
                yield decoder
            return
        with sound:
            decoder = _SoundFileDecoder(
                sound, file, segment, block_frames, noise, is_patched=patched is not None
            )
            yield decoder


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    try:
        with open(name, "rb") as file:
            yield file
    except OSError as error:
        raise AudioError(name, f"cannot be read: {error.strerror or error}") from None


def explain(error: soundfile.LibsndfileError) -> str:
    """The reason of libsndfile, as text for a table."""
    message = error.error_string.strip().rstrip(".").removeprefix("Error : ")
    return f"cannot be decoded: {message}"


def _why_not(kind: FileKind | None, error: soundfile.LibsndfileError | None) -> str:
    if kind is None or not kind.name:
        return explain(error) if error else "headerless raw samples of unknown rate; convert them to WAV"
    if kind.by_ffmpeg and not ffmpeg_is_installed():
        return f"{kind.name}; {kind.remedy}, or install a decoder for it: pip install 'raydec[ffmpeg]'"
    return f"{kind.name}; {kind.remedy}"


class _SoundFileDecoder:
    """Decodes with libsndfile."""

    def __init__(
        self,
        sound: soundfile.SoundFile,
        file: BinaryIO,
        segment: Segment,
        block_frames: int,
        noise: MpegNoise,
        *,
        is_patched: bool,
    ) -> None:
        self._noise = noise
        self.rate: int = sound.samplerate
        self.failure: str | None = None
        self._sound, self._file, self._segment = sound, file, segment
        self._block_frames, self._is_patched = block_frames, is_patched
        self._num_promised = sound.frames if 0 < sound.frames < _OPEN_LENGTH else 0

    # In blocks, because a damaged header may promise terabytes, and a damaged end must not lose the rest.
    def blocks(self) -> Iterator[Block]:
        first, end = self._segment.frames(self.rate)
        # libsndfile reads no more than it promises.
        ends = [place for place in (end, self._num_promised) if place]
        try:
            self._skip_to(first)
            left = min(ends) - first if ends else None
            while left is None or left > 0:
                wanted = self._block_frames if left is None else min(left, self._block_frames)
                with self._noise.silenced():
                    block = self._sound.read(wanted, dtype="float32", always_2d=True)
                if not len(block):
                    return
                left = None if left is None else left - len(block)
                yield block
        except soundfile.LibsndfileError as error:
            self.failure = explain(error)

    def warning(self, num_frames: int) -> str | None:
        if not self._segment.is_whole:
            return _short_segment(self._segment, num_frames / self.rate) or self.failure
        share = num_frames / self._num_promised if self._num_promised else 1.0
        data = find_samples(self._file)
        if self._is_patched and data is not None and not data.promised:
            return _NO_LENGTH
        if data is not None:
            share = min(share, data.share)
        if share < _WHOLE:
            return f"cut short: {share:.0%} of the promised samples are there"
        if ogg_end_missing(self._file):
            return "cut short: the end of its Ogg stream is missing"
        return self.failure or (_DAMAGED_MPEG if self._noise.was_heard else None)

    def _skip_to(self, first: int) -> None:
        if not first:
            return
        is_lossy = self._sound.format in _LOSSY or self._sound.subtype in _LOSSY
        run_up = min(first, self.rate) if is_lossy else 0
        if self._sound.seekable():
            # Clipped, for a file that ends before the segment starts.
            self._sound.seek(min(first - run_up, max(self._sound.frames, 0)))
            left = run_up
        else:
            left = first
        with self._noise.silenced():
            while left and (skipped := len(self._sound.read(min(left, self._block_frames)))):
                left -= skipped


@contextmanager
def _ffmpeg_decoder(name: str, segment: Segment, why_not: str) -> Iterator[Decoder]:
    """Args: ``why_not`` is libsndfile's reason, if it is more informative than FFmpeg's."""
    import av

    try:
        container = av.open(name, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(name, why_not or f"cannot be decoded: {_ffmpeg_reason(error)}") from None
    with container:
        if not container.streams.audio:
            raise AudioError(name, "a video or other file without sound")
        yield _FfmpegDecoder(container, segment)


class _FfmpegDecoder:
    """Decodes with FFmpeg, always from the start of the file, so that segments are exact."""

    def __init__(self, container: Any, segment: Segment) -> None:
        self._container, self._segment = container, segment
        self._stream = container.streams.audio[0]
        self.rate: int = self._stream.rate
        self.failure: str | None = None

    def blocks(self) -> Iterator[Block]:
        first, end = self._segment.frames(self.rate)
        place = 0
        for block in self._decoded():
            wanted = block[max(first - place, 0) : None if end is None else max(end - place, 0)]
            place += len(block)
            if len(wanted):
                yield np.ascontiguousarray(wanted)
            if end is not None and place >= end:
                return

    def warning(self, num_frames: int) -> str | None:
        if not self._segment.is_whole:
            return _short_segment(self._segment, num_frames / self.rate) or self.failure
        duration_s = self._duration_s()
        share = num_frames / self.rate / duration_s if duration_s else 1.0
        # Durations are rounded and may include padding at both ends, so half a second does not count.
        if share < _WHOLE and duration_s - num_frames / self.rate > 0.5:
            return f"cut short: {share:.0%} of the promised samples are there"
        return self.failure

    def _duration_s(self) -> float:
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        return (self._container.duration or 0) / 1e6

    def _decoded(self) -> Iterator[Block]:
        import av

        to_planes = av.AudioResampler(format="fltp")
        try:
            for frame in self._container.decode(self._stream):
                for plain in to_planes.resample(frame):
                    yield plain.to_ndarray().T
            for plain in to_planes.resample(None):
                yield plain.to_ndarray().T
        except (av.error.FFmpegError, ValueError) as error:
            self.failure = f"cannot be decoded: {_ffmpeg_reason(error)}"


def _ffmpeg_reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _short_segment(segment: Segment, duration_s: float) -> str | None:
    if segment.end_s is None or segment.end_s - segment.start_s - duration_s <= 0.05:
        return None
    return f"the segment ends at {segment.end_s:g} s, the recording at {segment.start_s + duration_s:.2f} s"
