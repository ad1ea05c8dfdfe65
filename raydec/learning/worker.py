"""The interface between the maths and its runtime: the protocol of a worker, and implementations without Ray.

A worker is one of ``world_size`` processes that train together. It provides all collectives of the maths,
which are called explicitly.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from raydec.files.storage import CHECKPOINT_FOLDER, one_line
from raydec.learning.member import Member

# Ranks that wait for the same rank time out at about the same time.
_ROLL_CALL_S = 10.0


class LostRankError(RuntimeError):
    """A collective failed because a rank did not take part; the message names it."""


@runtime_checkable
class Worker(Protocol):
    """One of the processes that train together."""

    rank: int
    world_size: int
    device: torch.device

    def all_sum(self, tensor: Tensor) -> Tensor:
        """The element-wise sum over all workers, on every worker. Not differentiable; a new tensor."""
        ...

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Equal-shaped tensors of all workers, stacked in rank order: ``[world, ...]``."""
        ...

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, on every worker."""
        ...

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Send ``parts[rank]`` to each rank; returns what each rank sent to this one, in rank order.

        Parts differ in length only.
        """
        ...

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None, name: str) -> None:
        """Report an epoch's metrics; the folders of all workers together become checkpoint ``name``."""
        ...

    def latest_checkpoint(self) -> AbstractContextManager[Path | None]:
        """Context manager: a local folder with the newest complete checkpoint, or None."""
        ...

    def members(self) -> list[Member]:
        """The processes of this group, beginning with the ranks in order; all workers must call it."""
        ...


class LocalWorker:
    """The only worker, in this process. Checkpoints go to ``run_folder/checkpoints``."""

    rank = 0
    world_size = 1

    def __init__(
        self, run_folder: Path | None = None, device: str = "cpu", keep_checkpoints: int = 2
    ) -> None:
        self.device = torch.device(device)
        self._folder = None if run_folder is None else run_folder / CHECKPOINT_FOLDER
        self._keep = keep_checkpoints

    def all_sum(self, tensor: Tensor) -> Tensor:
        """See :class:`Worker`."""
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """See :class:`Worker`."""
        return tensor.unsqueeze(0)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """See :class:`Worker`."""
        return tensor

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """See :class:`Worker`."""
        return list(parts)

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None, name: str) -> None:
        """Move the folder into place with one rename, then delete the oldest checkpoints."""
        if checkpoint is None:
            return
        if self._folder is None:
            shutil.rmtree(checkpoint)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        arriving = self._folder / f".{name}.partial"
        shutil.rmtree(arriving, ignore_errors=True)
        try:
            shutil.move(checkpoint, arriving)
        except OSError:
            shutil.rmtree(arriving, ignore_errors=True)
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise
        shutil.rmtree(self._folder / name, ignore_errors=True)
        arriving.rename(self._folder / name)
        for old in self._complete()[: -self._keep]:
            shutil.rmtree(old)

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        """See :class:`Worker`."""
        complete = self._complete()
        yield complete[-1] if complete else None

    def members(self) -> list[Member]:
        """See :class:`Worker`."""
        return [Member.here("rank 0")]

    def _complete(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.is_dir() and path.name[0] != ".")


class DistributedWorker:
    """A member of an initialised ``torch.distributed`` group (gloo on CPUs, NCCL on GPUs).

    A collective that fails or times out on gloo raises :class:`LostRankError`; NCCL ends the process itself.

    Args:
        device: of the tensors of collectives.
        address: at which other machines reach this machine.
    """

    def __init__(self, device: torch.device, address: str = "127.0.0.1") -> None:
        self.device = device
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._here = Member.here(f"rank {self.rank}", address)
        self._members: list[Member] = []
        self._num_collectives = 0

    def all_sum(self, tensor: Tensor) -> Tensor:
        """See :class:`Worker`."""
        total = tensor.detach().clone().to(self.device)
        with self._together():
            dist.all_reduce(total)
        return total.to(tensor.device)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """See :class:`Worker`."""
        mine = tensor.detach().contiguous().to(self.device)
        parts = [torch.empty_like(mine) for _ in range(self.world_size)]
        with self._together():
            dist.all_gather(parts, mine)
        return torch.stack(parts).to(tensor.device)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """See :class:`Worker`."""
        value = tensor.detach().clone().contiguous().to(self.device)
        with self._together():
            dist.broadcast(value, src=0)
        return value.to(tensor.device)

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """See :class:`Worker`."""
        sent = [len(part) for part in parts]
        received = self.all_gather(torch.tensor(sent))[:, self.rank].tolist()
        outgoing = torch.cat(list(parts)).to(self.device)
        incoming = outgoing.new_empty((sum(received), *outgoing.shape[1:]))
        with self._together():
            dist.all_to_all_single(incoming, outgoing, received, sent)
        return list(incoming.to(parts[0].device).split(received))

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None, name: str) -> None:
        """Delete the checkpoint, because a bare process group keeps none."""
        if checkpoint is not None:
            shutil.rmtree(checkpoint)

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        """None, because a bare process group keeps no checkpoints."""
        yield None

    def members(self) -> list[Member]:
        """See :class:`Worker`."""
        everyone: list[Any] = [None] * self.world_size
        with self._together():
            dist.all_gather_object(everyone, self._here)
        self._members = everyone
        return everyone

    @contextmanager
    def _together(self) -> Iterator[None]:
        self._num_collectives += 1
        try:
            yield
        except RuntimeError as error:
            raise LostRankError(f"{self._absent()}: {one_line(error)}") from error

    def _absent(self) -> str:
        """Names the ranks that do not report the failure of this collective, so did not take part in it."""
        others = [rank for rank in range(self.world_size) if rank != self.rank]
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(self._call(self.rank), "waited")
            missing = self._silent(store, others)
        except RuntimeError:  # the store is in the process of rank 0
            missing = [0]
        if not missing:
            return f"collective {self._num_collectives} failed although every rank took part"
        named = {rank: f"rank {rank}" for rank in missing}
        named |= {rank: str(self._members[rank]) for rank in missing if rank < len(self._members)}
        return f"{self._here.role} waited in vain for {', '.join(named.values())}"

    def _silent(self, store: dist.Store, ranks: list[int]) -> list[int]:
        deadline = time.monotonic() + _ROLL_CALL_S
        while ranks := [rank for rank in ranks if not store.check([self._call(rank)])]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return ranks

    def _call(self, rank: int) -> str:
        return f"raydec/collective-{self._num_collectives}/rank-{rank}"


def share_of(num_items: int, rank: int, world_size: int) -> slice:
    """The contiguous share of ``num_items`` of ``rank``; the sizes of shares differ by at most one."""
    return slice(num_items * rank // world_size, num_items * (rank + 1) // world_size)


def gather_rows(worker: Worker, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Concatenate every worker's share of rows, in rank order, on every worker.

    Args:
        worker: the collective.
        rows: ``[share, ...]``, the rows of ``share_of(num_items)``; shares may differ in length.
        num_rows: total number of rows; the result is ``[num_rows, ...]``.
    """
    if worker.world_size == 1:
        return rows
    counts = worker.all_gather(torch.tensor([len(rows)])).flatten().tolist()
    padded = np.zeros((max(counts), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    gathered = worker.all_gather(torch.from_numpy(padded)).numpy()
    joined = np.concatenate([part[:count] for part, count in zip(gathered, counts, strict=True)])
    assert len(joined) == num_rows, f"gathered {len(joined)} rows, expected {num_rows}"
    return joined
