"""Workers that are threads of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from raydec.learning.member import Member

Result = TypeVar("Result")


class ThreadWorker:
    """One of several workers, which share a desk."""

    device = torch.device("cpu")

    def __init__(self, rank: int, desk: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.world_size = rank, len(desk)
        self._desk, self._barrier = desk, barrier

    def _everyones(self, mine: Any) -> list[Any]:
        self._desk[self.rank] = mine
        self._barrier.wait()
        everything = list(self._desk)
        self._barrier.wait()
        return everything

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._everyones(tensor))

    def all_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.all_gather(tensor).sum(0)

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.all_gather(tensor)[0]

    def exchange(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [sent[self.rank] for sent in self._everyones(list(parts))]

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None, name: str) -> None:
        raise NotImplementedError

    def latest_checkpoint(self) -> Iterator[Path | None]:
        raise NotImplementedError

    def members(self) -> list[Member]:
        raise NotImplementedError


def on_workers(world_size: int, run: Callable[[ThreadWorker], Result]) -> list[Result]:
    """What a function returns on each of several workers, in rank order."""
    desk: list[Any] = [None] * world_size
    barrier = threading.Barrier(world_size, timeout=60)

    def on(rank: int) -> Result:
        try:
            return run(ThreadWorker(rank, desk, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(on, range(world_size)))
