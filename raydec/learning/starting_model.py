"""Starts training from a model instead of random weights; parts that do not fit stay random."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Mapping
from dataclasses import replace

import torch

from raydec.config import Config
from raydec.errors import UserError
from raydec.features.front_end import ChunkFormat, FrontEnd
from raydec.learning.targets.protocol import Target
from raydec.learning.targets.registry import Targets
from raydec.model.directory import load_model
from raydec.model.hub import local_model
from raydec.model.network import Network
from raydec.model.outputs import Outputs
from raydec.model.trained import NetworkSpec, TrainedModel

# Cluster ids are meaningless without the assignment from which they come.
_ALWAYS_FRESH = "cluster_head.top."
_TRUNK = "encoder"
logger = logging.getLogger(__name__)


def starting_model(config: Config, front_end: FrontEnd, form: ChunkFormat) -> TrainedModel | None:
    """The model of ``model.init``; None if the run starts from random weights.

    Raises:
        UserError: it cannot be read, or was trained on other features.
    """
    if config.model.init is None:
        return None
    trained = _loaded(config.model.init)
    differences = front_end.differences(trained.front_end)
    if differences:
        raise UserError(
            f"model.init={config.model.init} was trained on features that differ from those of the store: "
            f"{', '.join(differences)}"
        )
    for key in ("scale", "speaker_normalization"):
        theirs = getattr(trained.chunks, key)
        if theirs != getattr(form, key):
            raise UserError(
                f"model.init={config.model.init} was trained with features.{key}={theirs}, not "
                f"{getattr(form, key)}; set features.{key}={theirs}"
            )
    for key in ("encoder_tuning", *(["lora_rank"] if config.model.encoder_tuning == "lora" else [])):
        theirs, ours = trained.networks[0][0].model.get(key, "frozen"), getattr(config.model, key)
        if theirs != ours:
            raise UserError(
                f"model.init={config.model.init} was tuned with model.{key}={theirs}, not {ours}; "
                f"set model.{key}={theirs}"
            )
    return trained


def keep_label_scale(targets: Targets, trained: TrainedModel) -> Targets:
    """The targets with the label normalisation of a model, for the attributes that it predicts."""
    scales = {
        name: (mean, std)
        for spec, _ in trained.networks
        for name, mean, std in zip(spec.attributes, spec.label_mean, spec.label_std, strict=True)
    }
    return Targets(tuple(_rescaled(target, scales) for target in targets.members), targets.selection)


def start_from(trained: TrainedModel, network: Network, outputs: Outputs, name: str) -> list[str]:
    """Copy the weights that fit; heads and layers that do not fit keep their random weights.

    Args:
        trained: the model to start from.
        network: initialised randomly; changed in place.
        outputs: meaning of the columns of its emotion branch.
        name: of the model, for messages.

    Returns:
        The parts that keep their random weights.

    Raises:
        UserError: the trunks differ, so no weights could be copied.
    """
    spec, given = _best_network(trained, outputs)
    theirs, ours = given.state_dict(), network.state_dict()
    fresh = [part for part in _parts(ours) if not _fits(part, ours, theirs, spec, outputs)]
    if _TRUNK in fresh:
        raise UserError(
            f"model.init={name} has another trunk: set model.channels={_listed(spec, 'channels')} "
            f"model.embedding_dim={spec.model.get('embedding_dim')}"
        )
    taken = {
        key: theirs[key] for key in ours if _part(key) not in fresh and not key.startswith(_ALWAYS_FRESH)
    }
    network.load_state_dict(taken, strict=False)
    if fresh:
        logger.warning("starting from %s; parts that do not fit start anew: %s", name, ", ".join(fresh))
    return fresh


@functools.lru_cache(maxsize=1)
def _loaded(name: str) -> TrainedModel:
    return load_model(local_model(name))


def _rescaled(target: Target, scales: Mapping[str, tuple[float, float]]) -> Target:
    outputs = target.outputs
    own = zip(outputs.attributes, outputs.label_mean, outputs.label_std, strict=True)
    chosen = [scales.get(name, (mean, std)) for name, mean, std in own]
    other = copy.copy(target)
    means, stds = tuple(mean for mean, _ in chosen), tuple(std for _, std in chosen)
    other.outputs = replace(outputs, label_mean=means, label_std=stds)
    return other


def _best_network(trained: TrainedModel, outputs: Outputs) -> tuple[NetworkSpec, Network]:
    """The network of a model that shares most outputs; on ties, the first."""
    return max(trained.networks, key=lambda pair: len(set(pair[0].outputs.names) & set(outputs.names)))


def _parts(weights: Mapping[str, torch.Tensor]) -> list[str]:
    return list(dict.fromkeys(map(_part, weights)))


def _part(key: str) -> str:
    return key.split(".")[0]


def _fits(
    part: str,
    ours: Mapping[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
    spec: NetworkSpec,
    outputs: Outputs,
) -> bool:
    if part == "emotion_head" and spec.outputs.names != outputs.names:
        return False
    keys = [key for key in ours if _part(key) == part and not key.startswith(_ALWAYS_FRESH)]
    return all(key in theirs and theirs[key].shape == ours[key].shape for key in keys)


def _listed(spec: NetworkSpec, key: str) -> str:
    return f"[{','.join(map(str, spec.model.get(key, ())))}]"
