"""The trunk of the mel front end: convolutions that map a chunk of mel frames to a vector, and a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydec.config import PUBLISHED_CHANNELS, ModelConfig
from raydec.features.front_end import ChunkFormat, FrontEnd
from raydec.model.batch_norm import GlobalBatchNorm2d
from raydec.model.noise import Noise, dropout
from raydec.model.trunk import Trunk

_NUM_HALVINGS = 5
# Keeps the gradient of a standard deviation finite where a feature does not vary.
_VARIANCE_FLOOR = 1e-5


def strides(num_convolutions: int) -> tuple[int, ...]:
    """The stride of each convolution; the last five are 2, which reduces 62 x 128 to 2 x 4."""
    return tuple(2 if left <= _NUM_HALVINGS else 1 for left in range(num_convolutions, 0, -1))


def feature_map_sizes(chunk_frames: int, num_mels: int, num_convolutions: int = 7) -> list[tuple[int, int]]:
    """``(frames, mels)`` before the first and after each of the convolutions."""
    sizes = [(chunk_frames, num_mels)]
    for stride in strides(num_convolutions):
        frames, mels = sizes[-1]
        sizes.append((-(-frames // stride), -(-mels // stride)))
    return sizes


class MelCnn(Trunk):
    """3x3 convolutions and ``cnn_out``, the linear layer that both branches share.

    Args:
        channels: output channels of the convolutions; the published network has seven.
        embedding_dim: width of ``cnn_out``.
        dropout: share of ``cnn_out`` dropped in training.
        chunk_frames: frames per chunk. Shorter chunks are accepted as long as the last feature map has
            as many rows (33 to 64 frames give 2 rows).
        num_mels: mel bands.
        frame_pooling: the input of ``cnn_out``; ``flatten``: the whole last feature map; ``statistics``: its
            mean and standard deviation over time, for each channel and band.
    """

    def __init__(
        self,
        channels: Sequence[int],
        embedding_dim: int,
        dropout: float,
        chunk_frames: int = 62,
        num_mels: int = 128,
        frame_pooling: Literal["flatten", "statistics"] = "flatten",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        each = zip((1, *channels[:-1]), channels, strides(len(channels)), strict=True)
        for before, after, stride in each:
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1),
                GlobalBatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.frame_pooling = frame_pooling
        rows, columns = feature_map_sizes(chunk_frames, num_mels, len(channels))[-1]
        values = 2 if frame_pooling == "statistics" else rows
        self.cnn_out = nn.Linear(channels[-1] * values * columns, embedding_dim)
        self.dropout = dropout
        self.channels = tuple(channels)
        self.num_mels = num_mels
        self.chunk_frames = chunk_frames

    def feature_map(self, chunks: Float[Tensor, "chunk frame mel"]) -> Float[Tensor, "chunk feature"]:
        """The input of ``cnn_out``: 1024 values for 62 frames of 128 bands in the published network."""
        flat = self._pooled(self.convolutions(chunks.unsqueeze(1))).flatten(1)
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

    def _pooled(self, maps: Float[Tensor, "chunk channel row band"]) -> Float[Tensor, "chunk ..."]:
        if self.frame_pooling == "flatten":
            return maps
        deviation = (maps.var(dim=2, unbiased=False) + _VARIANCE_FLOOR).sqrt()
        return torch.cat([maps.mean(dim=2), deviation], dim=1)

    @property
    def embedding_dim(self) -> int:
        """Width of ``cnn_out``."""
        return self.cnn_out.out_features

    def takes(self, num_frames: int) -> bool:
        """Whether chunks of this length give a feature map of the same size as the longest chunks."""
        if self.frame_pooling == "statistics":
            return num_frames >= 1
        ours, longest = (
            feature_map_sizes(frames, self.num_mels, len(self.channels))[-1]
            for frames in (num_frames, self.chunk_frames)
        )
        return ours == longest

    def decoder(self, latent_dim: int) -> MelDecoder:
        """See :meth:`Trunk.decoder`."""
        return MelDecoder(self.channels, latent_dim, self.chunk_frames, self.num_mels)


class MelDecoder(nn.Module):
    """The mirror image of :class:`MelCnn`: latent vectors to chunks, by transposed convolutions.

    Args:
        channels: output channels of the mirrored convolutions.
        latent_dim: width of a latent vector.
        chunk_frames: frames per chunk.
        num_mels: mel bands.
    """

    def __init__(self, channels: Sequence[int], latent_dim: int, chunk_frames: int, num_mels: int) -> None:
        super().__init__()
        sizes = feature_map_sizes(chunk_frames, num_mels, len(channels))[::-1]
        outputs = [*channels[::-1], 1]
        self.start = (outputs[0], *sizes[0])
        self.expand = nn.Linear(latent_dim, outputs[0] * sizes[0][0] * sizes[0][1])
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides(len(channels))[::-1]):
            # A stride of 2 maps both 2n - 1 and 2n to n; the output padding selects the original size.
            extra = tuple(
                size - (stride * (small - 1) + 1) for small, size in zip(*sizes[i : i + 2], strict=True)
            )
            layers.append(
                nn.ConvTranspose2d(outputs[i], outputs[i + 1], 3, stride, padding=1, output_padding=extra)
            )
            if i + 1 < len(channels):
                layers += [GlobalBatchNorm2d(outputs[i + 1]), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, latent: Float[Tensor, "chunk latent"]) -> Float[Tensor, "chunk frame mel"]:
        """Chunks of normalised mel frames."""
        start = torch.relu(self.expand(latent)).view(-1, *self.start)
        return self.convolutions(start).squeeze(1)


def build(model: ModelConfig, front_end: FrontEnd, form: ChunkFormat) -> MelCnn:
    """Build the trunk of the mel front end; see :class:`raydec.features.front_end.FrontEnd`."""
    return MelCnn(
        model.channels or PUBLISHED_CHANNELS,
        model.embedding_dim,
        model.dropout,
        form.chunk_frames,
        front_end.width,
        model.frame_pooling or "flatten",
    )
