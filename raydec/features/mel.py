"""Mel-spectrograms.

The published features exactly: 16 kHz, peak-normalised waveform, 512-sample Hann window, hop 256, reflect
padding, power, 128 Slaney bands, no logarithm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional
import torchaudio.functional
from jaxtyping import Float32
from torch import Tensor

from raydec.features.mel_front_end import MelFrontEnd

# With more groups, the calls cost more than the zeros that they leave out.
_BAND_GROUPS = 8


def mel_frames(
    waveform: Float32[np.ndarray, " sample"] | Float32[Tensor, " sample"],
    parameters: MelFrontEnd | None = None,
) -> Float32[Tensor, "frame mel"]:
    """Mel power of a waveform, ``1 + samples // hop_length`` frames.

    A waveform too short to be mirrored at its ends (``n_fft / 2`` samples or fewer) is followed by zeros
    up to ``n_fft / 2 + 1`` samples. Silence stays zero.

    Args:
        waveform: samples at ``parameters.sample_rate``, at least one.
        parameters: defaults to :class:`MelFrontEnd`.
    """
    parameters = parameters or MelFrontEnd()
    samples = torch.as_tensor(waveform)
    if parameters.remove_dc:
        samples = samples - samples.mean(dtype=torch.float64).float()
    if parameters.peak_normalize:
        lowest, highest = samples.aminmax()
        peak = torch.maximum(highest, -lowest)
        samples = samples / peak if peak > 0 else samples
    missing = parameters.n_fft // 2 + 1 - len(samples)
    if missing > 0:
        samples = torch.nn.functional.pad(samples, (0, missing))
    return mel_transform(parameters)(samples)


@functools.lru_cache(maxsize=4)
def mel_transform(
    parameters: MelFrontEnd, center: bool = True
) -> Callable[[Float32[Tensor, " sample"]], Float32[Tensor, "frame mel"]]:
    """A function from samples to their mel power, up to rounding that of torchaudio's MelSpectrogram.

    It takes half the time: rows are frames from the beginning; a band is a weighted sum of squares of real
    and imaginary parts, without roots; bands are computed in groups, each from the bins with weights.

    Args:
        parameters: of the features.
        center: mirror the waveform at both ends, so that frames are centred on multiples of the hop.
    """
    n_fft = parameters.n_fft
    window = torch.hann_window(n_fft)
    bands = torchaudio.functional.melscale_fbanks(
        n_fft // 2 + 1,
        parameters.f_min,
        parameters.f_max,
        parameters.n_mels,
        parameters.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )

    groups = []
    for group in bands.repeat_interleave(2, dim=0).split(-(-parameters.n_mels // _BAND_GROUPS), dim=1):
        used = group.any(dim=1).nonzero()
        parts = slice(int(used.min()), int(used.max()) + 1) if len(used) else slice(0)
        groups.append((parts, group[parts].contiguous()))

    def transform(samples: Tensor) -> Tensor:
        if center:
            half = n_fft // 2
            samples = torch.cat([samples[1 : half + 1].flip(0), samples, samples[-half - 1 : -1].flip(0)])
        frames = samples.unfold(0, n_fft, parameters.hop_length) * window
        squares = torch.view_as_real(torch.fft.rfft(frames)).flatten(1).square_()
        return torch.cat([squares[:, parts] @ group for parts, group in groups], dim=1)

    return transform
