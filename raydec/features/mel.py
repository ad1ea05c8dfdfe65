"""Mel-spectrograms.

The published features exactly: 16 kHz, peak-normalised waveform, 512-sample Hann window, hop 256, reflect
padding, power, 128 Slaney bands, no logarithm.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional
import torchaudio.transforms
from jaxtyping import Float32
from torch import Tensor

from raydec.features.mel_front_end import MelFrontEnd


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
        peak = samples.abs().max()
        samples = samples / peak if peak > 0 else samples
    missing = parameters.n_fft // 2 + 1 - len(samples)
    if missing > 0:
        samples = torch.nn.functional.pad(samples, (0, missing))
    return mel_transform(parameters)(samples).T.contiguous()


@functools.lru_cache(maxsize=4)
def mel_transform(parameters: MelFrontEnd, center: bool = True) -> torchaudio.transforms.MelSpectrogram:
    """Mel power of samples, [mel, frame].

    Args:
        parameters: of the features.
        center: mirror the waveform at both ends, so that frames are centred on multiples of the hop.
    """
    return torchaudio.transforms.MelSpectrogram(
        parameters.sample_rate,
        n_fft=parameters.n_fft,
        hop_length=parameters.hop_length,
        n_mels=parameters.n_mels,
        f_min=parameters.f_min,
        f_max=parameters.f_max,
        norm="slaney",
        mel_scale="slaney",
        power=2,
        center=center,
        pad_mode="reflect",
    )
