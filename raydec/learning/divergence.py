"""Detects the step at which training diverges to non-finite values."""

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
    """Check that the losses of a step are finite.

    Args:
        config: the run's settings.
        losses: by name, of the global batch.
        place: epoch, stage and step, for the message.
        last_good: the last epoch with a checkpoint; 0 if there is none.

    Raises:
        DivergedError: a loss is not finite.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            raise diverged(config, f"loss_{name} is {value}", place, last_good)


def check_weights(config: Config, network: Network, place: str, last_good: int) -> None:
    """Check that all weights are finite: the update of the last step comes after its loss was checked.

    Raises:
        DivergedError: a weight is not finite.
    """
    if not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()):
        raise diverged(config, "weights are not finite", place, last_good)


def diverged(config: Config, problem: str, place: str, last_good: int) -> DivergedError:
    """The error with the problem, its place, what is kept and what to change."""
    kept = f"the checkpoint of epoch {last_good} is kept" if last_good else "no epoch was finished"
    names = _RATES[config.training.recipe]
    rates = ", ".join(f"training.{name}={getattr(config.training, name):g}" for name in names)
    exact = "" if config.training.precision == "fp32" else " or set training.precision=fp32"
    return DivergedError(
        f"training of {config.name} diverged at {place}: {problem}; {kept}. Under another name, lower "
        f"{rates}{exact}"
    )
