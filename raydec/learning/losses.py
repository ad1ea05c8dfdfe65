"""The terms of the training loss.

Terms that are means over rows are computed as sums, so that a worker divides by the count of the global batch
and gradients summed over workers are exact. The losses of targets are functions of statistics of the global
batch, which are merged over workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from raydec.learning.ccc import CccKind, CccMoments
from raydec.learning.mergeable import Mergeable

S = TypeVar("S", bound=Mergeable)


@runtime_checkable
class Criterion(Protocol[S]):
    """The loss of a target over a batch that is split over several workers."""

    def statistics(self, output: Float[Tensor, "chunk output"], labels: Float[Tensor, "chunk column"]) -> S:
        """The statistics of some chunks for the loss, differentiable with respect to ``output``.

        Args:
            output: the target's columns of the network's output; any number of chunks, also none.
            labels: encoded by the target; NaN if unlabeled.
        """
        ...

    def loss(self, statistics: S) -> Tensor:
        """The loss of all chunks in the statistics; 0 if none is labeled."""
        ...


class CccLoss:
    """The mean of 1 - CCC over attributes, a :class:`Criterion`.

    Args:
        kind: see :meth:`raydec.learning.ccc.CccMoments.ccc`.
        weighted: a second half of the columns of the labels has the weight of each label.
    """

    def __init__(self, kind: CccKind = "exact", weighted: bool = False) -> None:
        self._kind: CccKind = kind
        self._weighted = weighted

    def statistics(
        self, output: Float[Tensor, "chunk attribute"], labels: Float[Tensor, "chunk column"]
    ) -> CccMoments:
        """See :class:`Criterion`."""
        if self._weighted:
            return CccMoments.of(output, *labels.chunk(2, dim=1))
        return CccMoments.of(output, labels)

    def loss(self, statistics: CccMoments) -> Float64[Tensor, ""]:
        """See :func:`emotion_loss`."""
        return emotion_loss(statistics, self._kind)


@dataclass(frozen=True)
class CrossEntropySums:
    """A weighted sum of cross-entropies, and the sum of the weights.

    Attributes:
        loss: the sum over labeled chunks.
        weight: the sum of the weights.
    """

    loss: Float64[Tensor, ""]
    weight: Float64[Tensor, ""]

    def merge(self, other: CrossEntropySums) -> CrossEntropySums:
        """The sums over both sets of chunks."""
        return CrossEntropySums(self.loss + other.loss, self.weight + other.weight)

    def stack(self) -> Float64[Tensor, "2"]:
        """Both sums as one tensor."""
        return torch.stack([self.loss, self.weight])

    @classmethod
    def unstack(cls, stacked: Float64[Tensor, "2"]) -> CrossEntropySums:
        """The inverse of :meth:`stack`."""
        return cls(*stacked.unbind(0))


class CrossEntropyLoss:
    """The mean cross-entropy over labeled chunks, weighted by class, a :class:`Criterion`.

    Args:
        class_weights: factor on the loss of each class's chunks; the mean divides by their sum.
    """

    def __init__(self, class_weights: Sequence[float]) -> None:
        self._class_weights = torch.tensor(class_weights, dtype=torch.float64)

    def statistics(
        self, output: Float[Tensor, "chunk class"], labels: Float[Tensor, "chunk 1"]
    ) -> CrossEntropySums:
        """See :class:`Criterion`; ``output`` holds logits, ``labels`` the number of the class."""
        known = ~labels[:, 0].isnan()
        # Rows are not selected, because their number would have to be read from the device.
        numbers = torch.where(known, labels[:, 0], 0).long()
        weights = self._class_weights.to(output.device)[numbers] * known
        losses = F.cross_entropy(output, numbers, reduction="none").double()
        return CrossEntropySums((losses * weights).sum(), weights.sum())

    def loss(self, statistics: CrossEntropySums) -> Float64[Tensor, ""]:
        """See :class:`Criterion`."""
        return statistics.loss / torch.where(statistics.weight > 0, statistics.weight, 1)


def emotion_loss(moments: CccMoments, kind: CccKind = "exact") -> Float64[Tensor, ""]:
    """Mean of 1 - CCC over the attributes with at least one label in the batch; 0 if there are none.

    Args:
        moments: of the global batch.
        kind: see :meth:`raydec.learning.ccc.CccMoments.ccc`.
    """
    labeled = moments.count > 0
    losses = torch.where(labeled, 1 - moments.ccc(kind), 0)
    return losses.sum() / labeled.sum().clamp(min=1)


def cluster_loss_sum(
    logits: Float[Tensor, "chunk cluster"], labels: Int[Tensor, "chunk"]
) -> Float[Tensor, ""]:
    """Cross-entropy on pseudo-labels, summed over chunks; 0 for no chunks."""
    return F.cross_entropy(logits, labels.long(), reduction="sum")


def reconstruction_error_sum(
    reconstruction: Float[Tensor, "chunk frame mel"], chunks: Float[Tensor, "chunk frame mel"]
) -> Float[Tensor, ""]:
    """Squared error summed over every value of every chunk."""
    return F.mse_loss(reconstruction, chunks, reduction="sum")


def divergence_sum(
    mean: Float[Tensor, "chunk latent"], log_variance: Float[Tensor, "chunk latent"]
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of N(mean, exp(log_variance)) from N(0, 1), summed, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
