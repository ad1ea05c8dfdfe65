"""A training worker inside Ray Train."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import GetTimeoutError, RayActorError

from raydec.learning.member import Member
from raydec.learning.worker import DistributedWorker, LocalWorker, Worker

_ANSWER_S = 60.0


class RayWorker:
    """A worker that uses the process group and the checkpoint reports of Ray Train.

    Must be created inside a Ray Train worker.

    Args:
        start: checkpoint folder to start from while the run has no checkpoint of its own.
        kmeans_actor: handle of the run's K-means actor, which counts as a member; None if it has none.
    """

    def __init__(self, start: str | None = None, kmeans_actor: Any = None) -> None:
        self._start = start
        self._kmeans_actor = kmeans_actor
        context = ray.train.get_context()
        device = ray.train.torch.get_device()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = device
        # A group of one needs no collectives, so none can time out.
        self._group: Worker = (
            DistributedWorker(device, ray.util.get_node_ip_address())
            if self.world_size > 1
            else LocalWorker(device=str(device))
        )

    def all_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See :class:`raydec.learning.worker.Worker`."""
        return self._group.all_sum(tensor)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """See :class:`raydec.learning.worker.Worker`."""
        return self._group.all_gather(tensor)

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """See :class:`raydec.learning.worker.Worker`."""
        return self._group.broadcast(tensor)

    def exchange(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See :class:`raydec.learning.worker.Worker`."""
        return self._group.exchange(parts)

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None, name: str) -> None:
        """Report metrics and checkpoint to Ray Train, which stores the checkpoint before it registers it."""
        stored = None if checkpoint is None else ray.train.Checkpoint.from_directory(str(checkpoint))
        ray.train.report(
            dict(metrics),
            checkpoint=stored,
            checkpoint_dir_name=name,
            delete_local_checkpoint_after_upload=True,
        )

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        """The checkpoint that Ray Train registered last, copied to this node."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None and self._start is not None:
            checkpoint = ray.train.Checkpoint(self._start)
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def members(self) -> list[Member]:
        """See :class:`raydec.learning.worker.Worker`; the K-means actor comes last, if it answers."""
        if self.world_size > 1:
            members = self._group.members()
        else:
            members = [Member.here("rank 0", ray.util.get_node_ip_address())]
        if self._kmeans_actor is None:
            return members
        try:
            return [*members, ray.get(self._kmeans_actor.member.remote(), timeout=_ANSWER_S)]
        except (RayActorError, GetTimeoutError):
            return members

    def group_number(self) -> int:
        """A number that identifies this worker group within the run."""
        return int(self.broadcast(torch.tensor(secrets.randbits(62))))
