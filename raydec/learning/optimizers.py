"""The optimisers of the two recipes, their parameters and learning rates.

``reference`` is that of the published system: SGD and Adam, both over all parameters except the top layer of
the cluster head, and a new SGD for each new top layer. ``modern`` is one AdamW with warm-up and cosine decay.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from raydec.config import TrainingConfig
from raydec.model.network import Network


class Optimizers:
    """The optimisers of a run, by name; the stage determines which of them step.

    Args:
        config: the training section.
        network: the network whose parameters are optimised.
        total_steps: number of steps of the whole run, for the schedule of ``recipe=modern``.
    """

    def __init__(self, config: TrainingConfig, network: Network, total_steps: int) -> None:
        self._config = config
        self._network = network
        self._total_steps = max(total_steps, 1)
        # One kernel for all parameters; otherwise a step on a GPU takes a few hundred kernel launches. On a
        # CPU, the published optimisers keep their order of operations.
        self._fused = True if next(iter(network.body_parameters())).is_cuda else None

    @functools.cached_property
    def _all(self) -> dict[str, Optimizer]:
        # Created at first use, because the first optimiser of a process imports modules for a second.
        body = list(self._network.body_parameters())
        if self._config.recipe == "reference":
            optimizers: dict[str, Optimizer] = {
                "sgd": SGD(body, lr=self._config.sgd_learning_rate, fused=self._fused),
                "adam": Adam(body, lr=self._config.adam_learning_rate, fused=self._fused),
            }
        else:
            optimizers = {"adamw": self._adamw(body, self._network.tuned_parameters())}
        return optimizers | self._top()

    def renew_top(self) -> None:
        """Recreate the top layer's optimiser after the layer was replaced."""
        self._all.update(self._top())

    def _top(self) -> dict[str, Optimizer]:
        top = list(self._network.top_layer_parameters())
        if not top:
            return {}
        if self._config.recipe == "reference":
            return {"top": SGD(top, lr=self._config.head_learning_rate, fused=self._fused)}
        return {"top": self._adamw(top)}

    def step(self, step: int, *, supervised: bool) -> None:
        """Update the parameters with the present gradients.

        Args:
            step: global step, from 0.
            supervised: whether the stage has the emotion loss; without it, the published system uses no Adam.
        """
        for optimizer in self._active(supervised):
            if self._config.recipe == "modern":
                for group, peak in zip(optimizer.param_groups, self._peaks, strict=False):
                    group["lr"] = peak * self.schedule(step)
            optimizer.step()

    def zero_grad(self) -> None:
        """Clear all gradients."""
        for parameter in self._network.parameters():
            parameter.grad = None

    def schedule(self, step: int) -> float:
        """Factor on the learning rate at a global step: linear warm-up, then a cosine to zero."""
        warmup = max(1, round(self._config.warmup_fraction * self._total_steps))
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self._total_steps - warmup)
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))

    def state_dict(self) -> dict[str, Any]:
        """Every optimiser's state, by name."""
        return {name: optimizer.state_dict() for name, optimizer in self._all.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        for name, optimizer in self._all.items():
            optimizer.load_state_dict(state[name])
            # Fused kernels need moments in the memory order of the weights, which checkpoints do not keep.
            for parameter, moments in optimizer.state.items():
                for key, value in moments.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        moments[key] = torch.empty_like(parameter).copy_(value)

    def _active(self, supervised: bool) -> Iterator[Optimizer]:
        for name, optimizer in self._all.items():
            if name != "adam" or supervised:
                yield optimizer

    @property
    def _peaks(self) -> tuple[float, float]:
        """The largest learning rates: of the network, and of its pretrained encoder."""
        rate = self._config.learning_rate
        return rate, self._config.encoder_learning_rate or rate

    def _adamw(self, parameters: Sequence[nn.Parameter], tuned: Sequence[nn.Parameter] = ()) -> AdamW:
        """An optimiser of the network's parameters and, in a second group, of the encoder's."""
        ids = {id(parameter) for parameter in tuned}
        own = [parameter for parameter in parameters if id(parameter) not in ids]
        groups = [group for group in (own, list(tuned)) if group]
        return AdamW(
            [{"params": group} for group in groups],
            lr=self._config.learning_rate,
            weight_decay=self._config.weight_decay,
            fused=True,  # on a CPU, too, a third of the time
        )
