"""Mergeable statistics: merging those of the parts of any split gives those of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

M = TypeVar("M", bound="Mergeable")


@runtime_checkable
class Mergeable(Protocol):
    """Statistics of some rows, differentiable with respect to the rows."""

    def merge(self: M, other: M) -> M:
        """Statistics of both sets of rows together."""
        ...

    def stack(self) -> Tensor:
        """The statistics as one tensor, for sending to other workers."""
        ...

    @classmethod
    def unstack(cls: type[M], stacked: Tensor) -> M:
        """The inverse of :meth:`stack`."""
        ...


def merged_over_workers(local: M, all_gather: Callable[[Tensor], Tensor], rank: int) -> M:
    """Statistics of the global batch, differentiable with respect to this worker's rows.

    Every worker computes the same loss from the result, but the gradient flows only through its own rows.
    Therefore the gradient of the global loss is the sum, not the mean, of the workers' parameter gradients.

    Args:
        local: statistics of this worker's rows, possibly of none.
        all_gather: stacks a tensor of every worker to [worker, ...], without a gradient.
        rank: index of this worker in the result of ``all_gather``.
    """
    gathered = all_gather(local.stack().detach())
    shares = [type(local).unstack(stacked) for stacked in gathered]
    shares[rank] = local
    total = shares[0]
    for share in shares[1:]:
        total = total.merge(share)
    return total
