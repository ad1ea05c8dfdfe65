"""Statistics of stored frames, from which their normalisation is computed. Torch-free to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from raydec.features.front_end import Scale

LOG_OFFSET = 1e-6
"""Added to mel power before the logarithm, so that digital silence stays finite."""


@dataclass(frozen=True, eq=False)
class FrameMoments:
    """Count, mean and centred sum of squares of each value of frames; moments of parts can be merged.

    Attributes:
        scales: the rows of ``mean``.
        count: number of frames.
        mean: one row per scale.
        squares: sums of squared distances from the mean, rows as ``mean``.
    """

    scales: tuple[Scale, ...]
    count: int
    mean: Float64[np.ndarray, "scale width"]
    squares: Float64[np.ndarray, "scale width"]

    @classmethod
    def empty(cls, scales: Sequence[Scale], width: int) -> FrameMoments:
        """The moments of no frames."""
        return cls(tuple(scales), 0, np.zeros((len(scales), width)), np.zeros((len(scales), width)))

    @classmethod
    def of(cls, frames: Float[np.ndarray, "frame width"], scales: Sequence[Scale]) -> FrameMoments:
        """The moments of stored frames, computed in float64."""
        values = np.asarray(frames, dtype=np.float64)
        if not len(values):
            return cls.empty(scales, values.shape[1])
        scratch = np.empty_like(values)
        moments = [_mean_and_squares(values, scale, scratch) for scale in scales]
        mean, squares = (np.stack(parts) for parts in zip(*moments, strict=True))
        return cls(tuple(scales), len(values), mean, squares)

    def merge(self, other: FrameMoments) -> FrameMoments:
        """The moments of both sets of frames together."""
        count = self.count + other.count
        if not count:
            return self
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        squares = self.squares + other.squares + shift**2 * (self.count * other.count / count)
        return FrameMoments(self.scales, count, mean, squares)

    def mean_std(self, scale: Scale) -> tuple[Float64[np.ndarray, " width"], Float64[np.ndarray, " width"]]:
        """Mean and population standard deviation per value; 0 and 0 without frames."""
        row = self.scales.index(scale)
        return self.mean[row], np.sqrt(self.squares[row] / max(self.count, 1))

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; numbers are preserved exactly."""
        return {
            "scales": list(self.scales),
            "count": self.count,
            "mean": self.mean.tolist(),
            "squares": self.squares.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FrameMoments:
        """The inverse of :meth:`to_dict`."""
        mean, squares = np.array(values["mean"]), np.array(values["squares"])
        return cls(tuple(values["scales"]), int(values["count"]), mean, squares)


def _mean_and_squares(
    values: Float64[np.ndarray, "frame width"], scale: Scale, scratch: Float64[np.ndarray, "frame width"]
) -> tuple[Float64[np.ndarray, " width"], Float64[np.ndarray, " width"]]:
    if scale == "log":
        values = np.log(np.add(values, LOG_OFFSET, out=scratch), out=scratch)
    mean = values.mean(axis=0)
    np.subtract(values, mean, out=scratch)
    return mean, np.einsum("ij,ij->j", scratch, scratch)
