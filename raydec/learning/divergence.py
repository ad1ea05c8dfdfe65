"""Notices when training has left the finite numbers, at the step where it did."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from raydec.config import Config
from raydec.errors import DivergedError
from raydec.model.network import Network

_RATES = {
    "modern": ("learning_rate",),
    "reference": ("sgd_learning_rate", "adam_learning_rate", "head_learning_rate"),
}


def check_losses(config: Config, losses: Mapping[str, float], place: str, last_good: int) -> None:
    """See that the losses of a step are numbers.

    Args:
        config: the run's settings.
        losses: by name, of the global batch.
        place: epoch, stage and step, for people.
        last_good: epochs that have a checkpoint.

    Raises:
        DivergedError: one is not.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            raise diverged(config, f"loss_{name} is {value}", place, last_good)


def check_weights(config: Config, network: Network, place: str, last_good: int) -> None:
    """See that every weight is a number; a last step may have spoiled them after its loss. See above.

    Raises:
        DivergedError: one is not.
    """
    # Not running statistics: an integer counts their batches.
    if not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()):
        raise diverged(config, "weights are not finite", place, last_good)


def diverged(config: Config, problem: str, place: str, last_good: int) -> DivergedError:
    """The error that says what happened where, what is kept and what to change."""
    kept = f"the checkpoint of epoch {last_good} is kept" if last_good else "no epoch was finished"
    names = _RATES[config.training.recipe]
    rates = ", ".join(f"training.{name}={getattr(config.training, name):g}" for name in names)
    exact = "" if config.training.precision == "fp32" else " or set training.precision=fp32"
    return DivergedError(
        f"training of {config.name} diverged at {place}: {problem}; {kept}. Under another name, lower "
        f"{rates}{exact}"
    )
