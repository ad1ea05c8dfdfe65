"""The trunk of the encoder front end: maps hidden states, or their statistics, to one vector per chunk."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydec.config import ModelConfig
from raydec.features.encoder_front_end import EncoderFrontEnd
from raydec.features.front_end import ChunkFormat, FrontEnd
from raydec.model.noise import Noise, dropout
from raydec.model.trunk import Trunk

HIDDEN_WIDTH = 256
"""Width of the hidden layer in the autoencoders' decoder."""


class EncoderHead(Trunk):
    """Statistics over time, a learned weighted mean over layers, dropout, and a linear layer.

    Args:
        num_layers: hidden states per frame.
        hidden_size: values per hidden state.
        embedding_dim: width of the output.
        dropout: share of the output dropped in training.
        pooled: whether a chunk is a single frame of statistics, instead of hidden states.
        chunk_frames: frames per chunk.
    """

    def __init__(
        self,
        num_layers: int,
        hidden_size: int,
        embedding_dim: int,
        dropout: float,
        *,
        pooled: bool,
        chunk_frames: int,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.pooled = pooled
        self.chunk_frames = chunk_frames
        self.frame_width = num_layers * hidden_size * (2 if pooled else 1)
        self.layer_logits = nn.Parameter(torch.zeros(num_layers)) if num_layers > 1 else None
        self.out = nn.Linear(2 * hidden_size, embedding_dim)
        self.dropout = dropout
        if pooled:
            self.utterances_per_block = 8

    @property
    def embedding_dim(self) -> int:
        """Width of the output."""
        return self.out.out_features

    def layer_weights(self) -> Float[Tensor, " layer"]:
        """Weight of each layer; their sum is 1."""
        if self.layer_logits is None:
            return torch.ones(1)
        return torch.softmax(self.layer_logits, dim=0)

    def forward(
        self, chunks: Float[Tensor, "chunk frame width"], noise: Noise | None = None
    ) -> Float[Tensor, "chunk embedding"]:
        """See :meth:`Trunk.forward`."""
        return dropout(torch.relu(self.out(self._mixed(chunks))), self.dropout, noise)

    def _mixed(self, chunks: Float[Tensor, "chunk frame width"]) -> Float[Tensor, "chunk statistic"]:
        if self.pooled:
            by_layer = chunks[:, 0].unflatten(1, (self.num_layers, -1))
        else:
            states = chunks.unflatten(2, (self.num_layers, -1))
            mean, variance = states.mean(dim=1), states.var(dim=1, unbiased=False)
            by_layer = torch.cat([mean, (variance + 1e-6).sqrt()], dim=2)
        if self.layer_logits is None:
            return by_layer[:, 0]
        weights = torch.softmax(self.layer_logits, dim=0)
        # Two to four times as fast as einsum, which reorders the values first.
        return torch.bmm(weights.expand(by_layer.shape[0], 1, -1), by_layer)[:, 0]

    def decoder(self, latent_dim: int) -> nn.Module:
        """See :meth:`Trunk.decoder`."""
        return VectorDecoder(latent_dim, self.chunk_frames, self.frame_width)


class VectorDecoder(nn.Module):
    """Maps latent vectors back to chunks of normalised frames, by two linear layers.

    Args:
        latent_dim: width of a latent vector.
        chunk_frames: frames per chunk.
        width: values per frame.
    """

    def __init__(self, latent_dim: int, chunk_frames: int, width: int) -> None:
        super().__init__()
        self.shape = (chunk_frames, width)
        self.hidden = nn.Linear(latent_dim, HIDDEN_WIDTH)
        self.out = nn.Linear(HIDDEN_WIDTH, chunk_frames * width)

    def forward(self, latent: Float[Tensor, "chunk latent"]) -> Float[Tensor, "chunk frame width"]:
        """Chunks of normalised frames."""
        return self.out(torch.relu(self.hidden(latent))).unflatten(1, self.shape)


def build(model: ModelConfig, front_end: FrontEnd, form: ChunkFormat) -> EncoderHead:
    """Build the trunk of the encoder front end; see :class:`raydec.features.front_end.FrontEnd`."""
    assert isinstance(front_end, EncoderFrontEnd)
    return EncoderHead(
        len(front_end.layers),
        front_end.hidden_size,
        model.embedding_dim,
        model.dropout,
        pooled=front_end.pooled,
        chunk_frames=form.chunk_frames,
    )
