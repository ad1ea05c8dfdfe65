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
    # Half a second to import, and a process without a first assignment never needs it.
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(a, b)) if len(a) or len(b) else 1.0


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
    if len(labels) != len(previous_labels):
        raise ValueError(f"assignments of {len(previous_labels)} and of {len(labels)} chunks do not match")
    cells = labels.astype(np.int64) * num_clusters + previous_labels
    shared = np.bincount(cells, minlength=num_clusters**2).reshape(num_clusters, num_clusters)
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
