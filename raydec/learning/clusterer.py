"""The interface between an epoch and the clustering of its embeddings.

Two things can be replaced: where clusters are fitted (a :class:`Clusterer`: in the training processes, on a
sample, in a Ray actor), and how centroids are found (a :class:`CentroidFit`: K-means, or your own function).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64

from raydec.config import ClusteringConfig
from raydec.learning.clustering import KMeansResult, fit_kmeans
from raydec.learning.worker import Worker, gather_rows


@dataclass(frozen=True)
class ClusterAssignment:
    """A K-means result over a whole set, identical on every worker except for the labels.

    Attributes:
        labels: cluster of every chunk of this worker's share, in chunk order.
        centroids: one row per cluster.
        inertia: sum of squared distances.
        sizes: chunks per cluster.
        num_iterations: number of updates of the centroids.
        backend: the library that computed it.
        timings: ``gather_s``, ``fit_s``, ``broadcast_s``.
    """

    labels: Int32[np.ndarray, "chunk"]
    centroids: Float32[np.ndarray, "cluster dim"]
    inertia: float
    sizes: Int64[np.ndarray, "cluster"]
    num_iterations: int
    backend: str
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ClusteringTask:
    """What is to be clustered, and how.

    Attributes:
        epoch: identifies the task, together with ``stage``.
        stage: the set to cluster.
        num_clusters: K.
        seed: of this task, different for every one.
        init: initial centroids, [cluster, dim]; None: the clusterer chooses.
    """

    epoch: int
    stage: str
    num_clusters: int
    seed: int
    init: np.ndarray | None = None


@runtime_checkable
class Clusterer(Protocol):
    """Clusters the embeddings of all workers."""

    def assign(self, task: ClusteringTask, embeddings: np.ndarray) -> ClusterAssignment:
        """Cluster a set; every worker calls it and gets the same result, with the labels of its share.

        Args:
            task: what and how.
            embeddings: this worker's contiguous share of the rows, [chunk, dim]; shares are in rank order.
        """
        ...

    def describe(self) -> dict[str, float]:
        """Diagnostics of the last fit, logged as ``kmeans/...`` in the metrics."""
        ...


@runtime_checkable
class CentroidFit(Protocol):
    """Finds centroids of rows: K-means, or something else that ends with each row at its nearest centroid."""

    def __call__(
        self,
        embeddings: Float32[np.ndarray, "row dim"],
        config: ClusteringConfig,
        *,
        seed: int,
        init: np.ndarray | None = None,
        device: torch.device | str | None = None,
    ) -> KMeansResult:
        """Cluster rows.

        Args:
            embeddings: may be read-only; never changed.
            config: the clustering section; ``num_clusters`` is K.
            seed: everything random depends on it.
            init: initial centroids, [cluster, dim], where clusters are to keep their numbers.
            device: where to compute; None: a GPU if this process sees one.
        """
        ...


def fit_centroids(
    embeddings: Float32[np.ndarray, "row dim"],
    config: ClusteringConfig,
    *,
    seed: int,
    init: np.ndarray | None = None,
    device: torch.device | str | None = None,
) -> KMeansResult:
    """K-means, a :class:`CentroidFit`; see :func:`raydec.learning.clustering.fit_kmeans`."""
    return fit_kmeans(
        embeddings,
        config.num_clusters,
        seed=seed,
        init=init,
        max_iterations=config.max_iterations,
        tolerance=config.tolerance,
        backend=config.backend,
        max_fit_rows=config.max_fit_rows,
        device=device,
    )


class LocalClusterer:
    """K-means in the training processes: each gathers all rows and fits.

    Args:
        worker: of this process.
        config: the clustering section.
        fit: finds the centroids; default: K-means.
    """

    def __init__(self, worker: Worker, config: ClusteringConfig, fit: CentroidFit | None = None) -> None:
        self._worker = worker
        self._config = config
        self._fit = fit or fit_centroids

    def assign(self, task: ClusteringTask, embeddings: np.ndarray) -> ClusterAssignment:
        """See :class:`Clusterer`."""
        clock = [time.perf_counter()]
        counts = self._worker.all_gather(torch.tensor([len(embeddings)])).flatten().tolist()
        first = sum(counts[: self._worker.rank])
        everything = gather_rows(self._worker, embeddings, sum(counts))
        clock.append(time.perf_counter())
        # Every worker fits, so that all workers fail together. All use the result of rank 0, because machines
        # may round differently.
        config = self._config.model_copy(update={"num_clusters": task.num_clusters})
        result = self._fit(everything, config, seed=task.seed, init=task.init, device=self._worker.device)
        clock.append(time.perf_counter())
        labels = self._worker.broadcast(torch.from_numpy(result.labels)).numpy()
        centroids = self._worker.broadcast(torch.from_numpy(result.centroids)).numpy()
        numbers = self._worker.broadcast(
            torch.tensor([result.inertia, result.num_iterations], dtype=torch.float64)
        )
        clock.append(time.perf_counter())
        return ClusterAssignment(
            labels=labels[first : first + len(embeddings)].copy(),
            centroids=centroids,
            inertia=float(numbers[0]),
            sizes=np.bincount(labels, minlength=task.num_clusters),
            num_iterations=int(numbers[1]),
            backend=result.backend,
            timings=dict(zip(("gather_s", "fit_s", "broadcast_s"), np.diff(clock).tolist(), strict=True)),
        )

    def describe(self) -> dict[str, float]:
        """No diagnostics, because K-means runs in this process."""
        return {}
