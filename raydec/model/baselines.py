"""The paper's baselines: a regressor and two autoencoders, without clusters.

Their embeddings can still be clustered for analysis: the output of ``cnn_out`` for the regressor, the latent
for the autoencoders.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydec.config import ModelConfig
from raydec.model.batch_norm import GlobalBatchNorm2d
from raydec.model.encoder import STRIDES, Encoder, feature_map_sizes
from raydec.model.network import Head, Network, NetworkOutput
from raydec.model.noise import Noise
from raydec.model.temporal import build_temporal


class Regressor(Network):
    """Encoder and emotion head only. Arguments as for :class:`raydec.model.network.DeepEmoCluster`."""

    def __init__(
        self, model: ModelConfig, num_chunks: int, chunk_frames: int, num_mels: int, num_outputs: int
    ) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        dim = model.embedding_dim
        self.encoder = Encoder(model.channels, dim, model.dropout, chunk_frames, num_mels)
        self.temporal = build_temporal(model.temporal, dim, num_chunks, model.temporal_dropout)
        self.emotion_head = Head(dim, dim, num_outputs)

    def forward(self, chunks: Float[Tensor, "chunk frame mel"], noise: Noise | None = None) -> NetworkOutput:
        """The emotion branch for every chunk."""
        embedding = self.encoder(chunks, noise)
        return NetworkOutput(self.emotion_head(self._over_time(embedding, noise))[1], embedding)

    def embed(self, chunks: Float[Tensor, "chunk frame mel"]) -> Float[Tensor, "chunk d"]:
        """The output of ``cnn_out``."""
        return self.encoder(chunks)

    @property
    def embedding_dim(self) -> int:
        """Width of ``cnn_out``."""
        return self.encoder.cnn_out.out_features


class Decoder(nn.Module):
    """The encoder's mirror image: latent vectors to chunks, by transposed convolutions.

    Args:
        model: channels, latent width.
        chunk_frames: frames per chunk.
        num_mels: mel bands.
    """

    def __init__(self, model: ModelConfig, chunk_frames: int, num_mels: int) -> None:
        super().__init__()
        sizes = feature_map_sizes(chunk_frames, num_mels)[::-1]
        channels = [*model.channels[::-1], 1]
        self.start = (channels[0], *sizes[0])
        self.expand = nn.Linear(model.latent_dim, channels[0] * sizes[0][0] * sizes[0][1])
        layers: list[nn.Module] = []
        for i, stride in enumerate(STRIDES[::-1]):
            # A stride of 2 maps both 2n - 1 and 2n to n; the output padding selects the original size.
            extra = tuple(
                size - (stride * (small - 1) + 1) for small, size in zip(*sizes[i : i + 2], strict=True)
            )
            layers.append(
                nn.ConvTranspose2d(channels[i], channels[i + 1], 3, stride, padding=1, output_padding=extra)
            )
            if i + 1 < len(STRIDES):
                layers += [GlobalBatchNorm2d(channels[i + 1]), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, latent: Float[Tensor, "chunk latent"]) -> Float[Tensor, "chunk frame mel"]:
        """Chunks of normalised mel frames."""
        start = torch.relu(self.expand(latent)).view(-1, *self.start)
        return self.convolutions(start).squeeze(1)


class Autoencoder(Network):
    """Encoder, bottleneck and decoder; the emotion head reads the latent."""

    def __init__(
        self, model: ModelConfig, num_chunks: int, chunk_frames: int, num_mels: int, num_outputs: int
    ) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        latent_dim = model.latent_dim
        self.encoder = Encoder(model.channels, model.embedding_dim, model.dropout, chunk_frames, num_mels)
        self.bottleneck = nn.Linear(model.embedding_dim, latent_dim)
        self.temporal = build_temporal(model.temporal, latent_dim, num_chunks, model.temporal_dropout)
        self.emotion_head = Head(latent_dim, model.embedding_dim, num_outputs)
        self.decoder = Decoder(model, chunk_frames, num_mels)

    def forward(self, chunks: Float[Tensor, "chunk frame mel"], noise: Noise | None = None) -> NetworkOutput:
        """Emotion branch and reconstruction of every chunk."""
        latent = self.bottleneck(self.encoder(chunks, noise))
        return NetworkOutput(
            emotion=self.emotion_head(self._over_time(latent, noise))[1],
            embedding=latent,
            reconstruction=self.decoder(latent),
        )

    def embed(self, chunks: Float[Tensor, "chunk frame mel"]) -> Float[Tensor, "chunk d"]:
        """The latent."""
        return self.bottleneck(self.encoder(chunks))

    @property
    def embedding_dim(self) -> int:
        """Width of the latent."""
        return self.bottleneck.out_features


class VariationalAutoencoder(Autoencoder):
    """An autoencoder with a Gaussian latent, sampled only with noise; otherwise its mean is used."""

    def __init__(
        self, model: ModelConfig, num_chunks: int, chunk_frames: int, num_mels: int, num_outputs: int
    ) -> None:
        super().__init__(model, num_chunks, chunk_frames, num_mels, num_outputs)
        self.log_variance = nn.Linear(model.embedding_dim, model.latent_dim)

    def forward(self, chunks: Float[Tensor, "chunk frame mel"], noise: Noise | None = None) -> NetworkOutput:
        """Emotion branch, reconstruction and the latent's distribution for every chunk."""
        features = self.encoder(chunks, noise)
        mean, log_variance = self.bottleneck(features), self.log_variance(features)
        latent = mean
        if noise is not None:
            latent = mean + noise.normal(mean.shape, mean.device) * (0.5 * log_variance).exp()
        return NetworkOutput(
            emotion=self.emotion_head(self._over_time(latent, noise))[1],
            embedding=mean,
            reconstruction=self.decoder(latent),
            latent_mean=mean,
            latent_log_variance=log_variance,
        )
