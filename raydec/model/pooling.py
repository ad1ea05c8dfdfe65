"""Pools the chunk vectors of an utterance into one vector, from which the utterance is predicted."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

ATTENTION_WIDTH = 64
_LEAST_VARIANCE = 1e-6


class AttentivePooling(nn.Module):
    """Attentive statistics pooling (Okabe et al. 2018): weighted mean, then weighted standard deviation.

    A chunk's weight is the softmax over the utterance of ``score(tanh(hidden(chunk)))``.

    Args:
        dim: width of a chunk vector.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, ATTENTION_WIDTH)
        # Without a bias, because a constant does not change a softmax.
        self.score = nn.Linear(ATTENTION_WIDTH, 1, bias=False)

    def forward(self, sequence: Float[Tensor, "utterance chunk d"]) -> Float[Tensor, "utterance 2*d"]:
        """Mean and standard deviation of each utterance, side by side."""
        weights = self.score(torch.tanh(self.hidden(sequence))).softmax(dim=1)
        mean = (weights * sequence).sum(dim=1)
        variance = (weights * (sequence - mean.unsqueeze(1)).square()).sum(dim=1)
        return torch.cat([mean, (variance + _LEAST_VARIANCE).sqrt()], dim=1)


def build_pooling(kind: str, dim: int) -> tuple[AttentivePooling | None, int]:
    """The layer for ``model.pooling`` (None for ``mean``), and the input width of the emotion branch."""
    if kind == "attentive":
        return AttentivePooling(dim), 2 * dim
    return None, dim
