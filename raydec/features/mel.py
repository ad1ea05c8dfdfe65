"""Mel-spectrograms, their two scales, and the statistics that normalise them.

The published features exactly: 16 kHz, peak-normalised waveform, 512-sample Hann window, hop 256, reflect
padding, power, 128 Slaney bands, no logarithm, z-normalised per band, NaN to 0, clipped to +-3.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional
import torchaudio.transforms
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from raydec.features.parameters import SCALES, FeatureParameters, Scale

LOG_OFFSET = 1e-6
"""Added to mel power before the logarithm, so that digital silence stays finite."""


def mel_frames(
    waveform: Float32[np.ndarray, " sample"] | Float32[Tensor, " sample"],
    parameters: FeatureParameters | None = None,
) -> Float32[Tensor, "frame mel"]:
    """Mel power of a waveform, ``1 + samples // hop_length`` frames.

    A waveform too short to be mirrored at its ends (``n_fft / 2`` samples or fewer) is followed by zeros
    up to ``n_fft / 2 + 1`` samples. Silence stays zero.

    Args:
        waveform: samples at ``parameters.sample_rate``, at least one.
        parameters: defaults to :class:`FeatureParameters`.
    """
    parameters = parameters or FeatureParameters()
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
def mel_transform(parameters: FeatureParameters, center: bool = True) -> torchaudio.transforms.MelSpectrogram:
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


def scale_frames(frames: Float[Tensor, "*axes mel"], scale: Scale) -> Float[Tensor, "*axes mel"]:
    """Mel power as it is, or its natural logarithm ``log(x + 1e-6)``."""
    return frames if scale == "power" else (frames + LOG_OFFSET).log_()


@dataclass(frozen=True, eq=False)
class FrameNormalizer:
    """Per-band z-normalisation, as the published system does it.

    Attributes:
        mean: per band, on ``scale``.
        std: population standard deviation per band, on ``scale``.
        scale: what is normalised: mel power or its logarithm.
        clip: normalised values are limited to +-clip.
    """

    mean: Float32[np.ndarray, " mel"]
    std: Float32[np.ndarray, " mel"]
    scale: Scale
    clip: float

    def normalize(self, frames: Float[Tensor, "*axes mel"]) -> Float32[Tensor, "*axes mel"]:
        """Scale, z-normalise, NaN (a band that never varied) to 0, clip. The input is left alone."""
        # Copied: what Ray hands to a worker is read-only, of which torch warns.
        mean = torch.tensor(self.mean, device=frames.device)
        std = torch.tensor(self.std, device=frames.device)
        scaled = scale_frames(frames.float(), self.scale)
        return ((scaled - mean).div_(std)).nan_to_num_(nan=0.0).clamp_(-self.clip, self.clip)


@dataclass(frozen=True, eq=False)
class MelMoments:
    """Count, mean and centred sum of squares per band, on both scales; parts merge into the whole.

    Attributes:
        count: number of frames.
        mean: one row per scale of :data:`SCALES`.
        squares: sums of squared distances from the mean, rows as ``mean``.
    """

    count: int
    mean: Float64[np.ndarray, "scale mel"]
    squares: Float64[np.ndarray, "scale mel"]

    @classmethod
    def empty(cls, num_mels: int) -> MelMoments:
        """The moments of no frames."""
        return cls(0, np.zeros((len(SCALES), num_mels)), np.zeros((len(SCALES), num_mels)))

    @classmethod
    def of(cls, frames: Float[np.ndarray, "frame mel"]) -> MelMoments:
        """The moments of mel-power frames, computed in float64."""
        power = np.asarray(frames, dtype=np.float64)
        if not len(power):
            return cls.empty(power.shape[1])
        scales = np.stack([power, np.log(power + LOG_OFFSET)])
        mean = scales.mean(axis=1)
        return cls(len(power), mean, np.square(scales - mean[:, None]).sum(axis=1))

    def merge(self, other: MelMoments) -> MelMoments:
        """The moments of both sets of frames together."""
        count = self.count + other.count
        if not count:
            return self
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        squares = self.squares + other.squares + shift**2 * (self.count * other.count / count)
        return MelMoments(count, mean, squares)

    def mean_std(self, scale: Scale) -> tuple[Float64[np.ndarray, " mel"], Float64[np.ndarray, " mel"]]:
        """Mean and population standard deviation per band; of no frames: 0 and 0."""
        row = SCALES.index(scale)
        return self.mean[row], np.sqrt(self.squares[row] / max(self.count, 1))

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object; numbers survive the round trip exactly."""
        return {"count": self.count, "mean": self.mean.tolist(), "squares": self.squares.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MelMoments:
        """The inverse of :meth:`to_dict`."""
        return cls(int(values["count"]), np.array(values["mean"]), np.array(values["squares"]))
