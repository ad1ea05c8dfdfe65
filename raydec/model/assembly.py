"""Builds a network from its configuration."""

from __future__ import annotations

from importlib import import_module

import torch

from raydec.config import ModelConfig
from raydec.features.front_end import ChunkFormat, FrontEnd
from raydec.model.baselines import Autoencoder, Regressor, VariationalAutoencoder
from raydec.model.network import DeepEmoCluster, Network
from raydec.model.trunk import Trunk

_BASELINES: dict[str, type[Regressor | Autoencoder]] = {
    "regressor": Regressor,
    "autoencoder": Autoencoder,
    "vae": VariationalAutoencoder,
}


def build_network(
    model: ModelConfig, front_end: FrontEnd, form: ChunkFormat, num_outputs: int, num_clusters: int
) -> Network:
    """Build the network of ``model.kind``; call ``initialize`` before training it.

    Args:
        model: architecture.
        front_end: the front end of the frames, which determines the trunk.
        form: the chunk geometry.
        num_outputs: columns of the emotion branch.
        num_clusters: width of the cluster head, if the kind has one.

    Raises:
        UserError: the temporal layer does not support the widths or the number of chunks.
    """
    # PyTorch's constructors draw weights from the global generator, whose state is restored here.
    with torch.random.fork_rng(devices=[]):
        trunk = _build_trunk(model, front_end, form)
        if model.kind == "deepemocluster":
            return DeepEmoCluster(model, trunk, form.num_chunks, num_outputs, num_clusters)
        return _BASELINES[model.kind](model, trunk, form.num_chunks, num_outputs)


def _build_trunk(model: ModelConfig, front_end: FrontEnd, form: ChunkFormat) -> Trunk:
    if model.temporal == "triplet" and model.kind == "deepemocluster":
        # The triplet loss compares the input of the branches, so there is no dropout before it.
        model = model.model_copy(update={"dropout": 0.0})
    module, _, function = front_end.trunk.partition(":")
    return getattr(import_module(module), function)(model, front_end, form)
