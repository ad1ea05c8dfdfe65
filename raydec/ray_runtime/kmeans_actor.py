"""K-means as a Ray actor over the embeddings that all training workers hold.

Every worker puts its share into Ray's object store and passes a reference to the actor. The actor reads the
shares without copying, concatenates them in rank order and fits once; every worker then fetches the same
centroids, and the labels of its own share. The actor's only state is the current round, so after a restart
the workers send their shares again. Only the actor imports torch, not the process that starts it.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError

from raydec.config import ClusteringConfig
from raydec.errors import UserError
from raydec.learning.host import keep_freed_memory
from raydec.learning.member import Member

Round = tuple[int, int, str, int]
"""Worker group, epoch, stage, attempt. The group keeps shares of a replaced worker group apart."""


class MissingSharesError(RuntimeError):
    """A round lacks shares, because the actor was restarted during the round."""


class KMeansActor:
    """Concatenates the shares of a round, fits, and keeps the result until the next round.

    Args:
        num_threads: threads of K-means on a CPU; default: the number of cores of the machine.
        fit: a :class:`raydec.learning.clusterer.CentroidFit`; None: K-means.
    """

    def __init__(self, num_threads: int | None = None, fit: Callable[..., Any] | None = None) -> None:
        import torch

        from raydec.learning.clusterer import fit_centroids

        keep_freed_memory()
        # The actor uses the workers' cores, because the workers wait while it works.
        torch.set_num_threads(num_threads or os.cpu_count() or 1)
        self._fit_centroids = fit or fit_centroids
        self._born = time.time()
        self._shares: dict[Round, dict[int, list[ray.ObjectRef]]] = {}
        self._results: dict[Round, tuple[list[ray.ObjectRef], dict[str, float]]] = {}

    def ping(self) -> bool:
        """Return True; a call succeeds once the actor runs."""
        return True

    def member(self) -> Member:
        """Description of the actor's process and its host."""
        return Member.here("kmeans", ray.util.get_node_ip_address())

    def submit(self, key: Round, rank: int, share: list[ray.ObjectRef]) -> None:
        """Store one worker's reference; a new round discards all others."""
        for stale in [known for known in self._shares if known != key]:
            del self._shares[stale]
        for stale in [known for known in self._results if known != key]:
            del self._results[stale]
        self._shares.setdefault(key, {})[rank] = share

    def fit(
        self,
        key: Round,
        world_size: int,
        config: ClusteringConfig,
        seed: int,
        init: np.ndarray | None,
    ) -> tuple[list[ray.ObjectRef], dict[str, float]]:
        """Fit at the first call of a round; later calls return the same result.

        Returns:
            References, so that nothing is sent to a node twice: to a
            :class:`raydec.learning.clustering.KMeansResult` without labels, then to the labels of each rank's
            share; and timings and diagnostics by name.
        """
        if key not in self._results:
            self._results[key] = self._fit(key, world_size, config, seed, init)
        references, timings = self._results[key]
        return references, timings | self._numbers()

    def _numbers(self) -> dict[str, float]:
        """Diagnostics: process id, age, and whether the actor was restarted."""
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        return {
            "pid": float(os.getpid()),
            "age_s": time.time() - self._born,
            "restarted": float(restarted),
        }

    def _fit(
        self, key: Round, world_size: int, config: ClusteringConfig, seed: int, init: np.ndarray | None
    ) -> tuple[list[ray.ObjectRef], dict[str, float]]:
        shares = self._shares.get(key, {})
        if len(shares) != world_size:
            raise MissingSharesError(f"round {key} has the shares of ranks {sorted(shares)} of {world_size}")
        begun = time.perf_counter()
        arrays = ray.get([shares[rank][0] for rank in range(world_size)])
        embeddings = arrays[0] if world_size == 1 else np.concatenate(arrays)
        gathered = time.perf_counter()
        result = self._fit_centroids(embeddings, config, seed=seed, init=init)
        fitted = time.perf_counter()
        del self._shares[key]
        ends = np.cumsum([len(array) for array in arrays])[:-1]
        common = dataclasses.replace(result, labels=result.labels[:0])
        references = [ray.put(part) for part in (common, *np.split(result.labels, ends))]
        return references, {"gather_s": gathered - begun, "fit_s": fitted - gathered}


def create_kmeans_actor(
    name: str,
    *,
    num_gpus: float = 0.0,
    num_threads: int | None = None,
    timeout_s: float = 120.0,
    fit: Callable[..., Any] | None = None,
) -> Any:
    """Start the actor of one run, owned by the caller; with a GPU, wait until it is placed.

    Without a GPU the actor needs no resources. Then this function does not wait, so that the actor imports
    torch at the same time as the workers.

    Raises:
        UserError: it could not be placed in time.
    """
    actor: Any = (
        ray.remote(KMeansActor)
        .options(
            name=name,
            num_cpus=0,
            num_gpus=num_gpus,
            max_restarts=-1,
            max_task_retries=0,
        )
        .remote(num_threads, fit)
    )
    if num_gpus == 0:
        return actor
    try:
        ray.get(actor.ping.remote(), timeout=timeout_s)
    except GetTimeoutError:
        raise UserError(
            f"the K-means actor (num_gpus={num_gpus}) could not be placed in {timeout_s:.0f} s; "
            "free a GPU or set ray.use_gpu=false"
        ) from None
    return actor
