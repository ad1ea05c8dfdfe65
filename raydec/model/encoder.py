"""The convolutional encoder: one chunk of mel frames to one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydec.model.batch_norm import GlobalBatchNorm2d
from raydec.model.noise import Noise, dropout

# One stride per convolution: five halvings take 62 x 128 to 2 x 4.
STRIDES = (1, 1, 2, 2, 2, 2, 2)


def feature_map_sizes(chunk_frames: int, num_mels: int) -> list[tuple[int, int]]:
    """``(frames, mels)`` before the first and after each of the seven convolutions."""
    sizes = [(chunk_frames, num_mels)]
    for stride in STRIDES:
        frames, mels = sizes[-1]
        sizes.append((-(-frames // stride), -(-mels // stride)))
    return sizes


class Encoder(nn.Module):
    """Seven 3x3 convolutions and ``cnn_out``, the linear layer that both branches share.

    Args:
        channels: output channels of the seven convolutions.
        embedding_dim: width of ``cnn_out``.
        dropout: share of ``cnn_out`` dropped in training.
        chunk_frames: frames per chunk. Shorter chunks are accepted as long as the last feature map has
            as many rows (33 to 64 frames give 2 rows).
        num_mels: mel bands.
    """

    def __init__(
        self,
        channels: Sequence[int],
        embedding_dim: int,
        dropout: float,
        chunk_frames: int = 62,
        num_mels: int = 128,
    ) -> None:
        super().__init__()
        assert len(channels) == len(STRIDES), f"{len(channels)} channels for {len(STRIDES)} convolutions"
        layers: list[nn.Module] = []
        for before, after, stride in zip((1, *channels[:-1]), channels, STRIDES, strict=True):
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1),
                GlobalBatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        rows, columns = feature_map_sizes(chunk_frames, num_mels)[-1]
        self.cnn_out = nn.Linear(channels[-1] * rows * columns, embedding_dim)
        self.dropout = dropout

    def feature_map(self, chunks: Float[Tensor, "chunk frame mel"]) -> Float[Tensor, "chunk feature"]:
        """The flattened output of the convolutions (1024 values for 62 frames of 128 bands)."""
        flat = self.convolutions(chunks.unsqueeze(1)).flatten(1)
        assert flat.shape[1] == self.cnn_out.in_features, (
            f"chunks of {chunks.shape[1]} frames x {chunks.shape[2]} bands give {flat.shape[1]} features; "
            f"this encoder was built for {self.cnn_out.in_features}"
        )
        return flat

    def forward(
        self, chunks: Float[Tensor, "chunk frame mel"], noise: Noise | None = None
    ) -> Float[Tensor, "chunk embedding"]:
        """Encode chunks of normalised mel frames; dropout only with ``noise``."""
        return dropout(torch.relu(self.cnn_out(self.feature_map(chunks))), self.dropout, noise)
