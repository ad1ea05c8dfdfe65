"""The paper's baselines: a regressor and two autoencoders, without clusters.

Their embeddings can still be clustered for analysis: the output of the trunk for the regressor, the latent
for the autoencoders.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from raydec.config import ModelConfig
from raydec.model.network import Head, Network, NetworkOutput
from raydec.model.noise import Noise
from raydec.model.pooling import build_pooling
from raydec.model.temporal import build_temporal
from raydec.model.trunk import Trunk


class Regressor(Network):
    """Encoder and emotion head only. Arguments as for :class:`raydec.model.network.DeepEmoCluster`."""

    def __init__(self, model: ModelConfig, trunk: Trunk, num_chunks: int, num_outputs: int) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        dim = model.embedding_dim
        self.encoder = trunk
        self.temporal = build_temporal(model.temporal, dim, num_chunks, model.temporal_dropout)
        self.pooling, width = build_pooling(model.pooling, dim)
        self.emotion_head = Head(width, dim, num_outputs)

    def forward(
        self, chunks: Float[Tensor, "chunk frame width"], noise: Noise | None = None
    ) -> NetworkOutput:
        """The emotion branch for every chunk."""
        embedding = self.encoder(chunks, noise)
        return NetworkOutput(self._emotion(self._over_time(embedding, noise)), embedding)

    def embed(self, chunks: Float[Tensor, "chunk frame width"]) -> Float[Tensor, "chunk d"]:
        """The output of the trunk."""
        return self.encoder(chunks)

    @property
    def embedding_dim(self) -> int:
        """Width of the trunk's output."""
        return self.encoder.embedding_dim


class Autoencoder(Network):
    """Encoder, bottleneck and decoder; the emotion head reads the latent."""

    def __init__(self, model: ModelConfig, trunk: Trunk, num_chunks: int, num_outputs: int) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        latent_dim = model.latent_dim
        self.encoder = trunk
        self.bottleneck = nn.Linear(model.embedding_dim, latent_dim)
        self.temporal = build_temporal(model.temporal, latent_dim, num_chunks, model.temporal_dropout)
        self.pooling, width = build_pooling(model.pooling, latent_dim)
        self.emotion_head = Head(width, model.embedding_dim, num_outputs)
        self.decoder: nn.Module | None = trunk.decoder(latent_dim)

    def forward(
        self, chunks: Float[Tensor, "chunk frame width"], noise: Noise | None = None
    ) -> NetworkOutput:
        """Emotion branch and reconstruction of every chunk."""
        latent = self.bottleneck(self.encoder(chunks, noise))
        return NetworkOutput(
            emotion=self._emotion(self._over_time(latent, noise)),
            embedding=latent,
            reconstruction=self._decoded(latent),
        )

    def drop_decoder(self) -> None:
        """See :meth:`Network.drop_decoder`."""
        self.decoder = None

    def _decoded(self, latent: Float[Tensor, "chunk latent"]) -> Float[Tensor, "chunk frame width"] | None:
        return None if self.decoder is None else self.decoder(latent)

    def embed(self, chunks: Float[Tensor, "chunk frame width"]) -> Float[Tensor, "chunk d"]:
        """The latent."""
        return self.bottleneck(self.encoder(chunks))

    @property
    def embedding_dim(self) -> int:
        """Width of the latent."""
        return self.bottleneck.out_features


class VariationalAutoencoder(Autoencoder):
    """An autoencoder with a Gaussian latent, sampled only with noise; otherwise its mean is used."""

    def __init__(self, model: ModelConfig, trunk: Trunk, num_chunks: int, num_outputs: int) -> None:
        super().__init__(model, trunk, num_chunks, num_outputs)
        self.log_variance = nn.Linear(model.embedding_dim, model.latent_dim)

    def forward(
        self, chunks: Float[Tensor, "chunk frame width"], noise: Noise | None = None
    ) -> NetworkOutput:
        """Emotion branch, reconstruction and the latent's distribution for every chunk."""
        features = self.encoder(chunks, noise)
        mean, log_variance = self.bottleneck(features), self.log_variance(features)
        latent = mean
        if noise is not None:
            latent = mean + noise.normal(mean.shape, mean.device) * (0.5 * log_variance).exp()
        return NetworkOutput(
            emotion=self._emotion(self._over_time(latent, noise)),
            embedding=mean,
            reconstruction=self._decoded(latent),
            latent_mean=mean,
            latent_log_variance=log_variance,
        )
