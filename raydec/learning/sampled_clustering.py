"""K-means for sets that are too large for one process: fits on a sample, and assigns rows on their workers.

Only the sample's rows and K centroids are transferred; other embeddings and all labels stay on the worker
that computed them.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch

from raydec.config import ClusteringConfig
from raydec.learning.clusterer import ClusterAssignment, Clusterer, ClusteringTask
from raydec.learning.clustering import nearest_centroid, sample_rows
from raydec.learning.worker import Worker


def past_one_process(clusterer: Clusterer, worker: Worker, config: ClusteringConfig) -> Clusterer:
    """The clusterer itself, or, with ``max_fit_rows``, one that passes it only samples."""
    if config.max_fit_rows is None:
        return clusterer
    return SampledClusterer(clusterer, worker, config.max_fit_rows)


class SampledClusterer:
    """Fits with another clusterer on a sample, and assigns every worker's rows on that worker.

    The sample depends on the seed and the number of rows, not on the number of workers.

    Args:
        fitting: fits on the sample.
        worker: of this process.
        max_fit_rows: size of the sample; smaller sets are passed on whole.
    """

    def __init__(self, fitting: Clusterer, worker: Worker, max_fit_rows: int) -> None:
        self._fitting = fitting
        self._worker = worker
        self._max_fit_rows = max_fit_rows

    def assign(self, task: ClusteringTask, embeddings: np.ndarray) -> ClusterAssignment:
        """See :class:`raydec.learning.clusterer.Clusterer`."""
        counts = self._worker.all_gather(torch.tensor([len(embeddings)])).flatten().tolist()
        num_rows, first = sum(counts), sum(counts[: self._worker.rank])
        fit_on = embeddings
        if num_rows > self._max_fit_rows:
            picks = sample_rows(num_rows, self._max_fit_rows, task.seed) - first
            fit_on = embeddings[picks[(picks >= 0) & (picks < len(embeddings))]]
        found = self._fitting.assign(task, fit_on)
        if fit_on is embeddings:
            return found
        return self._assign_all(embeddings, found)

    def describe(self) -> dict[str, float]:
        """See :class:`raydec.learning.clusterer.Clusterer`."""
        return self._fitting.describe()

    def _assign_all(self, embeddings: np.ndarray, found: ClusterAssignment) -> ClusterAssignment:
        begun = time.perf_counter()
        labels, distances = nearest_centroid(embeddings, found.centroids, device=self._worker.device)
        assigned = time.perf_counter()
        sizes = np.bincount(labels, minlength=len(found.centroids))
        sizes = self._worker.all_sum(torch.from_numpy(sizes)).numpy()
        inertia = self._worker.all_sum(torch.tensor([distances.sum(dtype=np.float64)]))
        joined = time.perf_counter()
        timings = dict(found.timings)
        timings["assign_s"] = assigned - begun
        timings["broadcast_s"] = timings.get("broadcast_s", 0.0) + joined - assigned
        return dataclasses.replace(
            found,
            labels=labels,
            inertia=float(inertia[0]),
            sizes=sizes,
            timings=timings,
        )
