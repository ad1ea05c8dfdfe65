"""Cluster labels that stay on the workers that computed them.

Every worker holds the labels of its contiguous share of the rows. All workers know how many rows each worker
has in each cluster. From these counts, a worker computes which other worker holds a label that it needs; only
such requests and their answers are sent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64, Int, Int32, Int64

from raydec.learning.sampling import order_by
from raydec.learning.worker import Worker


class LabelShards:
    """The labels of all rows; every worker makes the same calls, each with its own questions.

    Args:
        worker: the collective.
        labels: of this worker's share of the rows, from 0 to ``num_clusters - 1``; shares are in rank order.
        num_clusters: K.

    Attributes:
        sizes: rows of each cluster over all workers.
    """

    def __init__(self, worker: Worker, labels: Int32[np.ndarray, "row"], num_clusters: int) -> None:
        self._worker = worker
        self._labels = labels
        mine = torch.from_numpy(np.bincount(labels, minlength=num_clusters))
        counts = worker.all_gather(mine).numpy()
        self.sizes: Int64[np.ndarray, "cluster"] = counts.sum(axis=0)
        num_rows = counts.sum(axis=1)
        self._first_rows = np.cumsum(num_rows) - num_rows
        # Rows in the order by cluster, then by worker: where each worker's part of a cluster begins, and
        # where it begins in that worker's own order by cluster.
        self._parts = (np.cumsum(counts.T) - counts.T.reshape(-1)).astype(np.int64)
        self._own_parts = (np.cumsum(counts, axis=1) - counts).T.reshape(-1)
        self._by_cluster: np.ndarray | None = None

    def at(
        self, places: Int64[np.ndarray, "place"]
    ) -> tuple[Int64[np.ndarray, "place"], Int32[np.ndarray, "place"]]:
        """Rows and their labels by place, the number in the order by cluster, then by row."""
        parts = np.searchsorted(self._parts, places, side="right") - 1
        owners = parts % self._worker.world_size
        own_places = places - self._parts[parts] + self._own_parts[parts]
        rows = self._ask(owners, own_places, self._rows_by_cluster)
        return rows, (parts // self._worker.world_size).astype(np.int32)

    def labels_of(
        self, groups: Int64[np.ndarray, "group"], group_size: int
    ) -> Int32[np.ndarray, "group group_size"]:
        """Labels of groups of consecutive rows, such as utterances; no group lies on two workers.

        Args:
            groups: group ``i`` has the rows from ``i * group_size`` on.
            group_size: rows of each group.
        """
        owners = np.searchsorted(self._first_rows, groups * group_size, side="right") - 1
        first_group = int(self._first_rows[self._worker.rank]) // group_size
        grouped = self._labels.reshape(-1, group_size)
        return self._ask(owners, groups, lambda asked: grouped[asked - first_group])

    def weights(self, group_size: int) -> Float64[np.ndarray, "group"]:
        """For each own group of consecutive rows, the sum over its rows of 1 / size of the cluster."""
        by_row = (1.0 / self.sizes.clip(min=1))[self._labels]
        return by_row.reshape(-1, group_size).sum(axis=1)

    def _rows_by_cluster(self, own_places: Int64[np.ndarray, "place"]) -> Int64[np.ndarray, "place"]:
        if self._by_cluster is None:
            self._by_cluster = order_by(self._labels, len(self.sizes))
        return self._first_rows[self._worker.rank] + self._by_cluster[own_places]

    def _ask(
        self,
        owners: Int[np.ndarray, "question"],
        questions: Int64[np.ndarray, "question"],
        answer: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Answers in the order of the questions, each from the worker that holds the label."""
        if self._worker.world_size == 1:
            return answer(questions)
        order = order_by(owners, self._worker.world_size)
        ends = np.cumsum(np.bincount(owners, minlength=self._worker.world_size))[:-1]
        asked = self._worker.exchange([torch.from_numpy(q) for q in np.split(questions[order], ends)])
        replies = self._worker.exchange([torch.from_numpy(answer(part.numpy())) for part in asked])
        joined = torch.cat(replies).numpy()
        answers = np.empty_like(joined)
        answers[order] = joined
        return answers
