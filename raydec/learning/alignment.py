"""Cluster ids across epochs: agreement of two assignments, and alignment of their ids."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int, Int64

from raydec.learning.clusterer import ClusterAssignment


def shared_chunks(
    labels: Int[np.ndarray, "chunk"], previous_labels: Int[np.ndarray, "chunk"], num_clusters: int
) -> Int64[np.ndarray, "cluster previous"]:
    """How many chunks each cluster shares with each previous cluster; counts of parts of a set add up.

    Args:
        labels: new ids.
        previous_labels: previous ids of the same chunks.
        num_clusters: K; all ids are below it.

    Raises:
        ValueError: labels of different lengths.
    """
    if len(labels) != len(previous_labels):
        raise ValueError(f"assignments of {len(previous_labels)} and {len(labels)} chunks do not match")
    cells = labels.astype(np.int64) * num_clusters + previous_labels
    return np.bincount(cells, minlength=num_clusters**2).reshape(num_clusters, num_clusters)


def normalized_mutual_information(shared: Int64[np.ndarray, "cluster previous"]) -> float:
    """Mutual information of two assignments of the same chunks, divided by the mean of their entropies.

    0 means independent, 1 the same partition, whatever the ids. If both assignments put everything into one
    cluster, or there are no chunks, the result is 1.
    """
    # Imported here, because it takes half a second and only some processes need it.
    from scipy.stats import entropy

    mean_entropy = (entropy(shared.sum(axis=0)) + entropy(shared.sum(axis=1))) / 2 if shared.any() else 0.0
    if mean_entropy == 0:
        return 1.0
    return max(0.0, float(2 - entropy(shared.ravel()) / mean_entropy))


def match_clusters(shared: Int64[np.ndarray, "cluster previous"]) -> Int64[np.ndarray, "cluster"]:
    """The permutation of cluster ids under which most chunks keep their previous id (Hungarian matching).

    Returns:
        A permutation: new cluster k becomes ``permutation[k]``.
    """
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


def cluster_health(sizes: Int64[np.ndarray, "cluster"]) -> dict[str, float]:
    """Indicators of a collapsed clustering, from the chunks of each cluster.

    Returns:
        ``empty``: clusters without a chunk; ``largest_share``: share of all chunks in the largest cluster.
    """
    return {
        "empty": float((sizes == 0).sum()),
        "largest_share": float(sizes.max() / max(1, sizes.sum())),
    }
