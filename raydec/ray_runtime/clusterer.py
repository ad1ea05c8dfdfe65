"""The clusterer of a training worker, which uses the K-means actor."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError

from raydec.config import ClusteringConfig
from raydec.learning.clusterer import ClusterAssignment, ClusteringTask
from raydec.learning.worker import Worker
from raydec.ray_runtime.kmeans_actor import MissingSharesError, Round

ATTEMPTS = 8


class RayClusterer:
    """Sends this worker's share to the actor and waits; if the actor is lost, all workers retry together.

    Args:
        actor: handle of a :class:`raydec.ray_runtime.kmeans_actor.KMeansActor`.
        worker: this worker; all workers of the group call :meth:`assign` together.
        config: the clustering section.
        group: a number that identifies the worker group within the run.
    """

    def __init__(self, actor: Any, worker: Worker, config: ClusteringConfig, group: int) -> None:
        self._actor = actor
        self._worker = worker
        self._config = config
        self._group = group
        self._last_actor: dict[str, float] = {}

    def assign(self, task: ClusteringTask, embeddings: np.ndarray) -> ClusterAssignment:
        """Cluster the embeddings of all workers; see :class:`raydec.learning.clusterer.Clusterer`.

        Raises:
            RuntimeError: the actor could not be reached in several attempts.
        """
        begun = time.perf_counter()
        share = ray.put(embeddings)
        config = self._config.model_copy(update={"num_clusters": task.num_clusters})
        problem: Exception | None = None
        for attempt in range(ATTEMPTS):
            key = (self._group, task.epoch, task.stage, attempt)
            problem = self._try(functools.partial(self._submit, key, share))[1]
            if not self._all_succeeded(problem):
                self._wait(attempt)
                continue
            answer, problem = self._try(functools.partial(self._fit, key, config, task.seed, task.init))
            if self._all_succeeded(problem):
                return self._assignment(answer, time.perf_counter() - begun)
            self._wait(attempt)
        raise RuntimeError(f"the K-means actor did not answer in {ATTEMPTS} attempts: {problem}")

    def describe(self) -> dict[str, float]:
        """Process id, age and restart flag of the actor at the last fit."""
        return self._last_actor

    def _assignment(self, answer: Any, elapsed_s: float) -> ClusterAssignment:
        result, labels, timings = answer
        broadcast_s = max(0.0, elapsed_s - timings["gather_s"] - timings["fit_s"])
        self._last_actor = {f"actor_{name}": timings[name] for name in ("pid", "age_s", "restarted")}
        return ClusterAssignment(
            labels=labels,
            centroids=result.centroids,
            inertia=result.inertia,
            sizes=result.sizes,
            num_iterations=result.num_iterations,
            backend=result.backend,
            timings={
                "gather_s": timings["gather_s"],
                "fit_s": timings["fit_s"],
                "broadcast_s": broadcast_s,
            },
        )

    def _submit(self, key: Round, share: ray.ObjectRef) -> None:
        ray.get(self._actor.submit.remote(key, self._worker.rank, [share]))

    def _fit(self, key: Round, config: ClusteringConfig, seed: int, init: np.ndarray | None) -> Any:
        found = self._actor.fit.remote(key, self._worker.world_size, config, seed, init)
        (common, *labels), timings = ray.get(found)
        return *ray.get([common, labels[self._worker.rank]]), timings

    def _try(self, call: Callable[[], Any]) -> tuple[Any, Exception | None]:
        # Other errors, for example non-finite embeddings, would only recur.
        try:
            return call(), None
        except (RayActorError, ObjectLostError, MissingSharesError) as error:
            return None, error

    def _all_succeeded(self, problem: Exception | None) -> bool:
        """Whether every rank succeeded, so that all ranks continue or retry together."""
        failures = self._worker.all_sum(torch.tensor([0.0 if problem is None else 1.0]))
        return failures.item() == 0.0

    def _wait(self, attempt: int) -> None:
        time.sleep(min(0.5 * 2**attempt, 10.0))
