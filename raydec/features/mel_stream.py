"""Computes mel frames of recordings of any length in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from raydec.features.audio import Recording
from raydec.features.mel import mel_frames, mel_transform
from raydec.features.mel_front_end import MelFrontEnd

_FRAMES_PER_BLOCK = 1024


def mel_blocks(
    recording: Recording, parameters: MelFrontEnd | None = None
) -> Iterator[Float32[Tensor, "_ mel"]]:
    """Mel power of a recording in blocks of frames; memory does not grow with its length.

    Concatenated, they equal :func:`mel_frames` of its samples: exactly if the recording is short enough for
    one block, else up to rounding.

    Args:
        recording: its samples must have ``parameters.sample_rate``.
        parameters: defaults to :class:`MelFrontEnd`.

    Raises:
        AudioError: the file can no longer be read.
    """
    parameters = parameters or MelFrontEnd()
    if recording.levels.num_samples <= parameters.n_fft:
        yield mel_frames(recording.samples(), parameters)
        return
    if recording.is_kept:
        yield mel_transform(parameters)(torch.cat([*_leveled(recording, parameters)]))
        return
    # Frames are centred on multiples of the hop; for the outer ones, the waveform is mirrored at both ends.
    half, hop = parameters.n_fft // 2, parameters.hop_length
    transform = mel_transform(parameters, center=False)
    waiting = torch.empty(0)
    is_first = True
    for block in _leveled(recording, parameters):
        waiting = torch.cat([waiting, block])
        if is_first and len(waiting) > half:
            waiting = torch.cat([waiting[1 : half + 1].flip(0), waiting])
            is_first = False
        # Samples that the mirrored end needs are held back.
        num_frames = (len(waiting) - 2 * half - 1) // hop
        if num_frames >= _FRAMES_PER_BLOCK:
            yield transform(waiting[: (num_frames - 1) * hop + parameters.n_fft])
            waiting = waiting[num_frames * hop :]
    yield transform(torch.cat([waiting, waiting[-half - 1 : -1].flip(0)]))


def _leveled(recording: Recording, parameters: MelFrontEnd) -> Iterator[Float32[Tensor, "_"]]:
    """Blocks of samples, with DC offset removed and peak normalised as the parameters require."""
    levels = recording.levels
    mean = np.float32(levels.mean if parameters.remove_dc else 0)
    peak = max(np.float32(levels.highest) - mean, mean - np.float32(levels.lowest))
    divisor = peak if parameters.peak_normalize and peak > 0 else np.float32(1)
    for block in recording.blocks():
        yield torch.from_numpy((block - mean if parameters.remove_dc else block) / divisor)
