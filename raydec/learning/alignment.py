"""Cluster ids across epochs: how much two assignments agree, and ids that keep their meaning."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int, Int64

from raydec.learning.clustering import ClusterAssignment


def normalized_mutual_information(a: Int[np.ndarray, "chunk"], b: Int[np.ndarray, "chunk"]) -> float:
    """Mutual information of two assignments of the same chunks over the mean of their entropies.

    0: independent; 1: the same partition, whatever the ids. Two assignments that both put everything into
    one cluster are the same partition. No chunks count as agreement.

    Raises:
        ValueError: of different lengths.
    """
    joint = contingency(a, b) / max(1, len(a))
    rows, columns = joint.sum(1), joint.sum(0)
    entropies = _entropy(rows) + _entropy(columns)
    if entropies == 0:
        return 1.0
    information = entropies - _entropy(joint)
    return float(np.clip(2 * information / entropies, 0, 1))


def match_clusters(
    previous_labels: Int[np.ndarray, "chunk"], labels: Int[np.ndarray, "chunk"], num_clusters: int
) -> Int64[np.ndarray, "cluster"]:
    """The renaming of clusters under which most chunks keep their previous id (Hungarian matching).

    Args:
        previous_labels: ids that are to be kept; below ``num_clusters``.
        labels: new ids of the same chunks.
        num_clusters: K.

    Returns:
        A permutation: new cluster k becomes ``permutation[k]``.

    Raises:
        ValueError: labels of different lengths.
    """
    shared = contingency(labels, previous_labels, num_clusters)
    # A third of a second to import, and no epoch but the second and later ones needs it.
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(shared, maximize=True)[1].astype(np.int64)


def rename_clusters(
    assignment: ClusterAssignment, permutation: Int64[np.ndarray, "cluster"]
) -> ClusterAssignment:
    """The same assignment with cluster k named ``permutation[k]``: labels, centroids and sizes."""
    order = np.argsort(permutation)
    return dataclasses.replace(
        assignment,
        labels=permutation.astype(np.int32)[assignment.labels],
        centroids=assignment.centroids[order],
        sizes=assignment.sizes[order],
    )


def align_labels(
    previous_labels: Int[np.ndarray, "chunk"], assignment: ClusterAssignment
) -> ClusterAssignment:
    """Rename clusters so that a cluster head that learned the previous ids can be kept.

    Args:
        previous_labels: the last assignment of the same chunks, of as many clusters.
        assignment: the new one.
    """
    num_clusters = len(assignment.centroids)
    return rename_clusters(assignment, match_clusters(previous_labels, assignment.labels, num_clusters))


def cluster_health(labels: Int[np.ndarray, "chunk"], num_clusters: int) -> dict[str, float]:
    """Signs of collapse.

    Returns:
        ``empty``: clusters without a chunk; ``largest_share``: share of all chunks in the largest cluster.
    """
    sizes = np.bincount(labels, minlength=num_clusters)
    return {
        "empty": float((sizes == 0).sum()),
        "largest_share": float(sizes.max() / max(1, len(labels))),
    }


def contingency(
    a: Int[np.ndarray, "chunk"], b: Int[np.ndarray, "chunk"], num_clusters: int | None = None
) -> Int64[np.ndarray, "a b"]:
    """How many chunks are in cluster i of ``a`` and j of ``b``; linear in the number of chunks.

    Args:
        a: ids, at least 0.
        b: ids of the same chunks.
        num_clusters: rows and columns; None: as many as the ids need.

    Raises:
        ValueError: of different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"assignments of {len(a)} and of {len(b)} chunks cannot be compared")
    num_rows, num_columns = (num_clusters or int(ids.max(initial=0)) + 1 for ids in (a, b))
    cells = np.bincount(a.astype(np.int64) * num_columns + b, minlength=num_rows * num_columns)
    return cells.reshape(num_rows, num_columns)


def _entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())
