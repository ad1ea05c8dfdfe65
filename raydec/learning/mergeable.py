"""Statistics that merge: those of any split of the rows give the number of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

M = TypeVar("M", bound="Mergeable")


@runtime_checkable
class Mergeable(Protocol):
    """Statistics of some rows, differentiable in what they were computed from."""

    def merge(self: M, other: M) -> M:
        """Statistics of both sets of rows together."""
        ...

    def stack(self) -> Tensor:
        """The statistics as one tensor, to be sent to other workers."""
        ...

    @classmethod
    def unstack(cls: type[M], stacked: Tensor) -> M:
        """The inverse of :meth:`stack`."""
        ...


def merged_over_workers(local: M, all_gather: Callable[[Tensor], Tensor], rank: int) -> M:
    """Statistics of the global batch, differentiable in this worker's rows.

    Every worker computes the same loss from the result, and differentiates it through its own rows only.
    The sum of the workers' parameter gradients is then the gradient of the global loss: it must be summed
    over workers, not averaged.

    Args:
        local: statistics of this worker's rows, possibly none.
        all_gather: stacks a tensor of every worker to [worker, ...], without a gradient.
        rank: this worker's place in what ``all_gather`` returns.
    """
    gathered = all_gather(local.stack().detach())
    shares = [type(local).unstack(stacked) for stacked in gathered]
    shares[rank] = local
    total = shares[0]
    for share in shares[1:]:
        total = total.merge(share)
    return total
