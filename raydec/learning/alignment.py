"""Cluster ids across epochs: agreement of two assignments, and alignment of their ids."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int, Int64

from raydec.learning.clusterer import ClusterAssignment


def normalized_mutual_information(a: Int[np.ndarray, "chunk"], b: Int[np.ndarray, "chunk"]) -> float:
    """Mutual information of two assignments of the same chunks, divided by the mean of their entropies.

    0 means independent, 1 the same partition, whatever the ids. If both assignments put everything into one
    cluster, or there are no chunks, the result is 1.

    Raises:
        ValueError: the lengths differ.
    """
    # Imported here, because it takes half a second and only some processes need it.
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(a, b)) if len(a) or len(b) else 1.0


def match_clusters(
    previous_labels: Int[np.ndarray, "chunk"], labels: Int[np.ndarray, "chunk"], num_clusters: int
) -> Int64[np.ndarray, "cluster"]:
    """The permutation of cluster ids under which most chunks keep their previous id (Hungarian matching).

    Args:
        previous_labels: previous ids, below ``num_clusters``.
        labels: new ids of the same chunks.
        num_clusters: K.

    Returns:
        A permutation: new cluster k becomes ``permutation[k]``.

    Raises:
        ValueError: labels of different lengths.
    """
    if len(labels) != len(previous_labels):
        raise ValueError(f"assignments of {len(previous_labels)} and {len(labels)} chunks do not match")
    cells = labels.astype(np.int64) * num_clusters + previous_labels
    shared = np.bincount(cells, minlength=num_clusters**2).reshape(num_clusters, num_clusters)
    # Imported here, because it takes a third of a second and the first epoch does not need it.
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(shared, maximize=True)[1].astype(np.int64)


def rename_clusters(
    assignment: ClusterAssignment, permutation: Int64[np.ndarray, "cluster"]
) -> ClusterAssignment:
    """The same assignment with cluster k renamed to ``permutation[k]`` in labels, centroids and sizes."""
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
    """Rename clusters so that a cluster head trained on the previous ids can be kept.

    Args:
        previous_labels: the last assignment of the same chunks to the same number of clusters.
        assignment: the new assignment.
    """
    num_clusters = len(assignment.centroids)
    return rename_clusters(assignment, match_clusters(previous_labels, assignment.labels, num_clusters))


def cluster_health(labels: Int[np.ndarray, "chunk"], num_clusters: int) -> dict[str, float]:
    """Indicators of a collapsed clustering.

    Returns:
        ``empty``: clusters without a chunk; ``largest_share``: share of all chunks in the largest cluster.
    """
    sizes = np.bincount(labels, minlength=num_clusters)
    return {
        "empty": float((sizes == 0).sum()),
        "largest_share": float(sizes.max() / max(1, len(labels))),
    }
