"""Scales of stored frames, and their published normalisation: z-normalised per value, NaN to 0, clipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from raydec.features.frame_moments import LOG_OFFSET
from raydec.features.front_end import Scale


def scale_frames(frames: Float[Tensor, "*axes width"], scale: Scale) -> Float[Tensor, "*axes width"]:
    """Frames as they are stored, or their natural logarithm ``log(x + 1e-6)``."""
    return (frames + LOG_OFFSET).log_() if scale == "log" else frames


@dataclass(frozen=True, eq=False)
class FrameNormalizer:
    """z-normalisation of each value of a frame, as the published system does it.

    Attributes:
        mean: per value, on ``scale``.
        std: population standard deviation per value, on ``scale``.
        scale: applied before normalisation.
        clip: normalised values are limited to +-clip.
    """

    mean: Float32[np.ndarray, " width"]
    std: Float32[np.ndarray, " width"]
    scale: Scale
    clip: float

    def normalize(
        self, frames: Float[Tensor, "*axes width"], offset: Float32[Tensor, "*others width"] | None = None
    ) -> Float32[Tensor, "*axes width"]:
        """Scale, z-normalise, set NaN (a value that never varied) to 0, clip; does not change the input.

        Args:
            frames: as they are stored.
            offset: subtracted after scaling, for each utterance or for all.
        """
        # Copied, because arrays from Ray are read-only and torch warns about those.
        mean = torch.tensor(self.mean, device=frames.device)
        std = torch.tensor(self.std, device=frames.device)
        scaled = scale_frames(frames.float(), self.scale)
        if scaled is frames:
            scaled = scaled.clone()
        # In place, because new memory costs several times the arithmetic.
        if offset is not None:
            scaled -= offset.to(scaled.device)
        return scaled.sub_(mean).div_(std).nan_to_num_(nan=0.0).clamp_(-self.clip, self.clip)
