"""Layers over the chunk sequence of an utterance, and the triplet loss, which needs no layer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from raydec.errors import UserError
from raydec.model.batch_norm import GlobalBatchNorm2d
from raydec.model.noise import Noise, dropout

# Chunks at most this far from the anchor are its positives, the others its negatives.
POSITIVE_REACH = 2


class NoTemporal(nn.Module):
    """The identity: no temporal layer."""

    def forward(
        self, sequence: Float[Tensor, "utterance chunk d"], noise: Noise | None = None
    ) -> Float[Tensor, "utterance chunk d"]:
        """Return ``sequence``."""
        return sequence


class GruTemporal(nn.Module):
    """A bidirectional GRU with ``dim / 2`` units per direction."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise UserError(f"model.temporal=gru needs an even width, not {dim}; change model.embedding_dim")
        self.gru = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True)

    def forward(
        self, sequence: Float[Tensor, "utterance chunk d"], noise: Noise | None = None
    ) -> Float[Tensor, "utterance chunk d"]:
        """Both directions' states, side by side."""
        # The GRU kernels reject an empty batch, but a worker may have one.
        return self.gru(sequence)[0] if sequence.shape[0] else sequence


class CnnTemporal(nn.Module):
    """Two 5x5 convolutions over the chunk x value map, treated as an image of one channel."""

    def __init__(self, dropout: float, channels: int = 16) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, channels, 5, padding=2),
            GlobalBatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 1, 5, padding=2),
            GlobalBatchNorm2d(1),
            nn.ReLU(inplace=True),
        )
        self.dropout = dropout

    def forward(
        self, sequence: Float[Tensor, "utterance chunk d"], noise: Noise | None = None
    ) -> Float[Tensor, "utterance chunk d"]:
        """A map of the same size."""
        return dropout(self.convolutions(sequence.unsqueeze(1)).squeeze(1), self.dropout, noise)


class QueryKeyValue(nn.Linear):
    """Projection to queries, keys and values; a separate class because its initialisation differs."""


class TransformerTemporal(nn.Module):
    """One post-norm Transformer encoder layer with a single head over sinusoidal positions."""

    positions: Tensor

    def __init__(self, dim: int, num_chunks: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("positions", sinusoidal_positions(num_chunks, dim), persistent=False)
        self.query_key_value = QueryKeyValue(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_in = nn.Linear(dim, dim)
        self.feed_forward_out = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = dropout

    def forward(
        self, sequence: Float[Tensor, "utterance chunk d"], noise: Noise | None = None
    ) -> Float[Tensor, "utterance chunk d"]:
        """Every chunk with attention over all chunks of its utterance."""
        x = sequence + self.positions
        x = self.attention_norm(x + dropout(self._attend(x, noise), self.dropout, noise))
        hidden = dropout(torch.relu(self.feed_forward_in(x)), self.dropout, noise)
        return self.feed_forward_norm(x + dropout(self.feed_forward_out(hidden), self.dropout, noise))

    def _attend(self, x: Tensor, noise: Noise | None) -> Tensor:
        # Not fused, because the dropout of the attention weights must come from `noise`.
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        weights = (query @ key.transpose(1, 2) / math.sqrt(x.shape[-1])).softmax(dim=-1)
        return self.attention_out(dropout(weights, self.dropout, noise) @ value)


def sinusoidal_positions(num_chunks: int, dim: int) -> Float[Tensor, "chunk d"]:
    """Sines in even and cosines in odd columns, with wavelengths from 2 pi to 20000 pi chunks."""
    places = torch.arange(num_chunks, dtype=torch.float64).unsqueeze(1)
    rates = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10000.0) / dim))
    positions = torch.zeros(num_chunks, dim, dtype=torch.float64)
    positions[:, 0::2] = torch.sin(places * rates)
    positions[:, 1::2] = torch.cos(places * rates)[:, : dim // 2]
    return positions.float()


def build_temporal(kind: str, dim: int, num_chunks: int, dropout: float) -> nn.Module:
    """Build the layer for ``model.temporal``; ``none`` and ``triplet`` give the identity.

    Raises:
        UserError: the kind does not support the width or the number of chunks.
    """
    if kind == "gru":
        return GruTemporal(dim)
    if kind == "cnn":
        return CnnTemporal(dropout)
    if kind == "transformer":
        return TransformerTemporal(dim, num_chunks, dropout)
    if kind == "triplet":
        _anchors(num_chunks)
    return NoTemporal()


def draw_triplets(
    num_chunks: int, num_utterances: int, per_utterance: int, generator: torch.Generator
) -> Int[Tensor, "utterance triplet 3"]:
    """Draw (anchor, positive, negative) chunk positions within each utterance.

    A positive lies within 2 chunks of its anchor, a negative farther away; all three are uniform.

    Args:
        num_chunks: chunks per utterance; at least 4.
        num_utterances: utterances of the global batch; a worker takes its rows of the result.
        per_utterance: triplets per utterance.
        generator: a CPU generator.

    Raises:
        UserError: fewer than 4 chunks, which leaves no negative.
    """
    anchors = torch.tensor(_anchors(num_chunks))
    shape = (num_utterances, per_utterance)
    anchor = anchors[torch.randint(len(anchors), shape, generator=generator)]
    distance = (torch.arange(num_chunks) - anchor.unsqueeze(-1)).abs()
    scores = torch.rand(2, *shape, num_chunks, generator=generator)
    positive = scores[0].masked_fill((distance == 0) | (distance > POSITIVE_REACH), -1.0).argmax(-1)
    negative = scores[1].masked_fill(distance <= POSITIVE_REACH, -1.0).argmax(-1)
    return torch.stack([anchor, positive, negative], dim=-1)


def triplet_loss(
    sequence: Float[Tensor, "utterance chunk d"],
    triplets: Int[Tensor, "utterance triplet 3"],
    margin: float,
) -> Float[Tensor, "utterance triplet"]:
    """max(0, |anchor - positive| - |anchor - negative| + margin) of every triplet, Euclidean, not reduced.

    The caller reduces it, because the mean over the global batch is not the mean of workers' means.
    """
    rows = torch.arange(sequence.shape[0], device=sequence.device)[:, None, None]
    anchor, positive, negative = sequence[rows, triplets.to(sequence.device)].flatten(0, 1).unbind(dim=1)
    losses = F.triplet_margin_loss(anchor, positive, negative, margin=margin, reduction="none")
    return losses.view(triplets.shape[:2])


def _anchors(num_chunks: int) -> list[int]:
    """Positions that have at least one negative."""
    anchors = [i for i in range(num_chunks) if max(i, num_chunks - 1 - i) > POSITIVE_REACH]
    if not anchors:
        least = POSITIVE_REACH + 2
        raise UserError(f"features.num_chunks={num_chunks}: model.temporal=triplet needs at least {least}")
    return anchors
