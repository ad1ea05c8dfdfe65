"""From configuration to network."""

from __future__ import annotations

import torch

from raydec.config import FeatureConfig, ModelConfig
from raydec.model.baselines import Autoencoder, Regressor, VariationalAutoencoder
from raydec.model.network import DeepEmoCluster, Network

NUM_MELS = 128

_BASELINES: dict[str, type[Regressor | Autoencoder]] = {
    "regressor": Regressor,
    "autoencoder": Autoencoder,
    "vae": VariationalAutoencoder,
}


def build_network(
    model: ModelConfig,
    features: FeatureConfig,
    num_outputs: int,
    num_clusters: int,
    num_mels: int = NUM_MELS,
) -> Network:
    """Build the network that ``model.kind`` names; call ``initialize`` before training it.

    Args:
        model: architecture.
        features: chunk geometry.
        num_outputs: columns of the emotion branch.
        num_clusters: width of the cluster head, if the kind has one.
        num_mels: mel bands.

    Raises:
        UserError: the temporal layer does not suit the widths or the number of chunks.
    """
    # PyTorch's constructors draw weights from the global generator; leave that as it was.
    with torch.random.fork_rng(devices=[]):
        if model.kind == "deepemocluster":
            return DeepEmoCluster(
                model, features.num_chunks, features.chunk_frames, num_mels, num_outputs, num_clusters
            )
        baseline = _BASELINES[model.kind]
        return baseline(model, features.num_chunks, features.chunk_frames, num_mels, num_outputs)
