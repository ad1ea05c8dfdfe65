"""From recordings to the network's input, in blocks: memory does not grow with a recording's length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float32, Num
from torch import Tensor

from raydec.corpus.segments import WHOLE, Segment
from raydec.features.audio import Recording, ResamplerFactory, StreamMixer, measure_audio, soxr_resampler
from raydec.features.chunking import chunk_starts
from raydec.features.kaiser import KaiserResampler
from raydec.features.mel_front_end import MelFrontEnd
from raydec.model.trained import TrainedModel

# Of longer recordings only the frames that lie in a chunk are kept.
_LONG_S = 120.0

Block = Float32[np.ndarray, "_"]


def open_recording(trained: TrainedModel, path: str, segment: Segment = WHOLE) -> Recording:
    """Read a recording once at a model's rate, by its resampler.

    Raises:
        AudioError: see :func:`raydec.features.audio.measure_audio`.
    """
    return measure_audio(path, trained.front_end.sample_rate, segment, resampler=_resampler(trained))


def _resampler(trained: TrainedModel) -> ResamplerFactory:
    return KaiserResampler if trained.resampler == "kaiser" else soxr_resampler


def frames_of(trained: TrainedModel, recording: Recording) -> Float32[Tensor, "frame width"]:
    """The frames of a recording that a model predicts as one utterance.

    Of a long recording, only the frames of its chunks are kept, one chunk after the other. Cutting them again
    gives the same chunks; those of an hour have 11 s.
    """
    form, front_end = trained.chunks, trained.front_end
    num_samples = recording.levels.num_samples
    is_long = num_samples > _LONG_S * front_end.sample_rate
    if not (is_long and isinstance(front_end, MelFrontEnd)):
        return torch.cat(list(front_end.blocks(recording)))
    num_frames = 1 + num_samples // front_end.hop_length
    starts = chunk_starts(num_frames, form.num_chunks, form.chunk_frames)
    chunks = torch.zeros(form.num_chunks, form.chunk_frames, front_end.width)
    place = 0
    for block in front_end.blocks(recording):
        for start, chunk in zip(starts.tolist(), chunks, strict=True):
            low, high = max(start, place), min(start + form.chunk_frames, place + len(block))
            if low < high:
                chunk[low - start : high - start] = block[low - place : high - place]
        place += len(block)
    return chunks.flatten(0, 1)


def stream_windows(
    trained: TrainedModel,
    blocks: Iterable[Num[np.ndarray, "_"] | Num[np.ndarray, "_ _"]],
    sample_rate: int,
    window_s: float,
    hop_s: float | None,
) -> Iterator[tuple[int, Block]]:
    """Windows of a stream at a model's rate, in one channel; see :func:`windows_of`.

    Raises:
        AudioError: unusable samples.
    """
    mixer = StreamMixer(sample_rate, trained.front_end.sample_rate, _resampler(trained))
    window, hop = in_samples(trained, window_s, hop_s)
    for place, samples in windows_of(mixer.resampled(blocks), window, hop):
        yield place, mixer.mixed(samples)


def in_samples(trained: TrainedModel, window_s: float, hop_s: float | None) -> tuple[int, int]:
    """A window and its hop in samples of a model's rate."""
    rate = trained.front_end.sample_rate
    window = max(1, round(window_s * rate))
    return window, window if hop_s is None else max(1, round(hop_s * rate))


def windows_of(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Windows of samples that arrive in blocks: the index of each one's first sample, and its samples.

    Windows begin every ``hop`` samples. A rest shorter than half a hop joins the last window; a longer one is
    the end of one more window. A window is returned as soon as it cannot be the last one, which is half a hop
    after its end.
    """
    parts: list[np.ndarray] = []
    num_held = begin = 0
    for block in blocks:
        parts.append(block)
        num_held += len(block)
        if (num_held - window) * 2 < hop:
            continue
        held, num_given = np.concatenate(parts), 0
        while (num_held - window) * 2 >= hop:
            yield begin, held[num_given : num_given + window]
            num_given, num_held, begin = num_given + hop, num_held - hop, begin + hop
        parts = [held[num_given:].copy()]
    if num_held:
        yield begin, np.concatenate(parts)
