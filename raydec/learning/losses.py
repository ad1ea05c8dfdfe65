"""The terms of the training loss.

Terms that are means over rows come as sums, so that a worker divides by the count of the global batch and
gradients summed over workers are exact. The emotion term is a function of the global batch's moments.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from raydec.learning.ccc import CccKind, CccMoments


def emotion_loss(moments: CccMoments, kind: CccKind = "exact") -> Float64[Tensor, ""]:
    """Mean of 1 - CCC over the attributes that some row of the batch is labeled for; 0 if there is none.

    Args:
        moments: of the global batch, see :func:`raydec.learning.ccc.global_moments`.
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
