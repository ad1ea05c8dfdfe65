"""Lin's concordance correlation coefficient (CCC), computed from mergeable moments.

Moments of the parts of any split can be merged into the moments of the whole. Therefore a metric over shards,
and a training loss over the global batch of several workers, equal that of a single process.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

CccKind = Literal["exact", "reference"]


@dataclass(frozen=True)
class CccMoments:
    """First and second moments of predictions and targets, one entry per attribute, in float64.

    A row of weight 2 counts as two equal rows would; weights need not be whole numbers.

    Attributes:
        count: number of rows with a target; of weighted rows, the sum of their weights.
        mean_prediction: mean of the predictions of those rows.
        mean_target: mean of their targets.
        m2_prediction: sum of squared deviations of the predictions from their mean.
        m2_target: sum of squared deviations of the targets from their mean.
        co_moment: sum of products of both deviations.
    """

    count: Float64[Tensor, "attribute"]
    mean_prediction: Float64[Tensor, "attribute"]
    mean_target: Float64[Tensor, "attribute"]
    m2_prediction: Float64[Tensor, "attribute"]
    m2_target: Float64[Tensor, "attribute"]
    co_moment: Float64[Tensor, "attribute"]

    @classmethod
    def of(
        cls,
        prediction: Float[Tensor, "row attribute"],
        target: Float[Tensor, "row attribute"],
        weight: Float[Tensor, "row attribute"] | None = None,
    ) -> CccMoments:
        """Moments of these rows; differentiable in ``prediction``.

        Args:
            prediction: any number of rows, also none.
            target: NaN if a row has no label for an attribute; this entry is then ignored, and its prediction
                gets a gradient of 0.
            weight: positive; ignored where there is no label. Default: 1 for every row.

        Raises:
            ValueError: the shapes differ (broadcasting would silently give a wrong loss).
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ")
        target = target.detach().to(torch.float64)
        labeled = ~target.isnan()
        weights = labeled.double() if weight is None else torch.where(labeled, weight.detach().double(), 0)
        count = weights.sum(0)
        mean_prediction, deviation_prediction = _centered(prediction.to(torch.float64), labeled, weights)
        mean_target, deviation_target = _centered(target, labeled, weights)
        return cls(
            count,
            mean_prediction,
            mean_target,
            (weights * deviation_prediction.square()).sum(0),
            (weights * deviation_target.square()).sum(0),
            (weights * (deviation_prediction * deviation_target)).sum(0),
        )

    def merge(self, other: CccMoments) -> CccMoments:
        """Moments of both sets of rows together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        share = other.count / torch.where(count > 0, count, 1)
        weight = self.count * share
        delta_prediction = other.mean_prediction - self.mean_prediction
        delta_target = other.mean_target - self.mean_target
        return CccMoments(
            count,
            self.mean_prediction + delta_prediction * share,
            self.mean_target + delta_target * share,
            self.m2_prediction + other.m2_prediction + delta_prediction.square() * weight,
            self.m2_target + other.m2_target + delta_target.square() * weight,
            self.co_moment + other.co_moment + delta_prediction * delta_target * weight,
        )

    def stack(self) -> Float64[Tensor, "6 attribute"]:
        """The moments as one tensor, for sending; see :meth:`unstack`."""
        return torch.stack([getattr(self, field.name) for field in fields(self)])

    @classmethod
    def unstack(cls, stacked: Float64[Tensor, "6 attribute"]) -> CccMoments:
        """The inverse of :meth:`stack`."""
        return cls(*stacked.unbind(0))

    def ccc(self, kind: CccKind = "exact") -> Float64[Tensor, "attribute"]:
        """The concordance of each attribute.

        If the coefficient is 0/0 (no rows, or a constant prediction equal to a constant target), it is 0
        with a gradient of 0. A constant prediction of a varying target also gives 0, but its gradient is
        finite and not zero, so training can leave the constant.

        Args:
            kind: ``exact`` uses population moments throughout. ``reference`` is the published training loss:
                population covariance over sample variances, (N-1)/N for a perfect prediction.
        """
        squares = self.m2_prediction + self.m2_target
        if kind == "reference":
            squares = squares * self.count / (self.count - 1).clamp(min=1)
        offset = (self.mean_prediction - self.mean_target).square()
        denominator = squares + self.count * offset
        return 2 * self.co_moment / torch.where(denominator == 0, 1, denominator)


def concordance(prediction: np.ndarray, target: np.ndarray) -> float:
    """Population CCC of two vectors in float64; rows with a NaN target are ignored.

    0 if it is undefined: no rows, or a constant prediction equal to a constant target.

    Args:
        prediction: [row].
        target: [row].

    Raises:
        ValueError: not two vectors of the same length.
    """
    if prediction.ndim != 1 or prediction.shape != target.shape:
        raise ValueError(f"need two vectors of the same length, not {prediction.shape} and {target.shape}")
    labeled = ~np.isnan(target)
    x, y = prediction[labeled].astype(np.float64), target[labeled].astype(np.float64)
    if not len(x):
        return 0.0
    # The pivot keeps constants exactly constant, as in _centered.
    x_deviation, y_deviation = (x - x[0]) - np.mean(x - x[0]), (y - y[0]) - np.mean(y - y[0])
    offset = (x[0] - y[0]) + (np.mean(x - x[0]) - np.mean(y - y[0]))
    denominator = np.mean(x_deviation**2) + np.mean(y_deviation**2) + offset**2
    return float(2 * np.mean(x_deviation * y_deviation) / denominator) if denominator != 0 else 0.0


def _centered(
    values: Float64[Tensor, "row attribute"],
    labeled: Bool[Tensor, "row attribute"],
    weights: Float64[Tensor, "row attribute"],
) -> tuple[Float64[Tensor, "attribute"], Float64[Tensor, "row attribute"]]:
    """Weighted means over labeled rows, and deviations from them (0 in rows without a label)."""
    count = weights.sum(0)
    zeros = torch.zeros_like(count)
    if len(values):
        # Subtracting one of the values first makes the deviations of a constant exactly 0; deviations from
        # a rounded mean would not be.
        first = labeled.to(torch.uint8).argmax(0, keepdim=True)
        pivot = torch.where(count > 0, values.detach().gather(0, first).squeeze(0), zeros)
    else:
        pivot = zeros
    shifted = torch.where(labeled, values - pivot, zeros)
    mean = (weights * shifted).sum(0) / torch.where(count > 0, count, 1)
    return pivot + mean, torch.where(labeled, shifted - mean, zeros)
