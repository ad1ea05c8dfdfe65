"""K-means that also uses the labels of labeled chunks, so that clusters differ in emotion.

The paper speaks of *maximising the emotional separation of K-means clusters*, but the published loss has no
term for it: one-second chunks cluster by voice and sound before anything else. Here the row of a labeled
chunk is its embedding, scaled to a total variance of 1, followed by its normalised labels. Lloyd's iterations
on such rows find clusters that are compact in both. A chunk without labels is assigned to the cluster whose
centroid is nearest to its embedding.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64

from raydec.features.chunk_set import ChunkSet
from raydec.learning.clusterer import ClusterAssignment, Clusterer, ClusteringTask
from raydec.learning.clustering import nearest_centroid
from raydec.learning.worker import Worker, share_of
from raydec.model.outputs import Outputs

# Limits the memory in float64: 1.1 million embeddings of 256 values would be 2.1 GiB.
_BLOCK_ROWS = 1 << 14


def label_columns(chunk_set: ChunkSet, outputs: Outputs, worker: Worker) -> Float[np.ndarray, "chunk column"]:
    """The labels in the form that K-means uses: this worker's share of chunks, NaN if a chunk has no label.

    Attributes are normalised by the training labels; each class is a column of 0 and 1. The columns of one
    chunk have a total variance of about 1.
    """
    columns = [chunk_set.labels(outputs.attributes) - outputs.mean[: len(outputs.attributes)]]
    columns[0] /= outputs.std[: len(outputs.attributes)] * np.sqrt(max(1, len(outputs.attributes)))
    for group, classes in outputs.classes.items():
        names = np.array(chunk_set.table[group].to_pylist(), dtype=object)
        one_hot = (names[:, None] == np.array(classes, dtype=object)).astype(np.float64)
        one_hot[one_hot.sum(axis=1) == 0] = np.nan
        columns.append(one_hot)
    share = share_of(chunk_set.num_utterances, worker.rank, worker.world_size)
    return np.concatenate(columns, axis=1)[share].repeat(chunk_set.num_chunks, axis=0)


def assign_with_labels(
    clusterer: Clusterer,
    worker: Worker,
    task: ClusteringTask,
    embeddings: Float[np.ndarray, "row dim"],
    labels: Float[np.ndarray, "row column"],
    *,
    weight: float,
    previous: Int32[np.ndarray, "row"] | None = None,
) -> ClusterAssignment:
    """Cluster a set; every worker calls it with its share and gets the same result, with its own labels.

    Args:
        clusterer: fits the labeled rows.
        worker: the collective.
        task: the clustering task; its ``init`` is not used.
        embeddings: this worker's contiguous share.
        labels: of the same rows, see :func:`label_columns`.
        weight: factor on the labels; 0 would be K-means of the embeddings.
        previous: clusters of the same rows in the last round; their means are the initial centroids. None:
            k-means++.

    Returns:
        Clusters of this worker's rows; the centroids are those of the embeddings, in their own scale.
    """
    known = np.isfinite(labels).any(axis=1)
    center, scale = _center_and_scale(embeddings, worker)
    dim = embeddings.shape[1]
    joined = np.empty((int(known.sum()), dim + labels.shape[1]), np.float32)
    _scale_into(joined[:, :dim], embeddings, np.flatnonzero(known), center, scale)
    joined[:, dim:] = weight * np.nan_to_num(labels[known])
    init = None
    if previous is not None:
        init = _means(joined, previous[known], task.num_clusters, worker)
    fitted = clusterer.assign(dataclasses.replace(task, init=init), joined)
    centroids = np.ascontiguousarray(fitted.centroids[:, :dim])
    assigned = np.empty(len(embeddings), np.int32)
    assigned[known] = fitted.labels
    del joined
    others = np.empty((int((~known).sum()), dim), np.float32)
    _scale_into(others, embeddings, np.flatnonzero(~known), center, scale)
    assigned[~known] = nearest_centroid(others, centroids)[0]
    sizes = worker.all_sum(torch.from_numpy(np.bincount(assigned, minlength=task.num_clusters)))
    return dataclasses.replace(
        fitted,
        labels=assigned,
        centroids=(centroids * scale + center).astype(np.float32),
        sizes=sizes.numpy(),
    )


def _center_and_scale(embeddings: np.ndarray, worker: Worker) -> tuple[np.ndarray, float]:
    """Mean of all workers' rows, and the square root of their total variance."""
    local = np.zeros(2 + embeddings.shape[1])
    for start in range(0, len(embeddings), _BLOCK_ROWS):
        wide = embeddings[start : start + _BLOCK_ROWS].astype(np.float64)
        local += np.concatenate([[len(wide), (wide**2).sum()], wide.sum(axis=0)])
    count, squares, *sums = worker.all_sum(torch.from_numpy(local)).tolist()
    center = np.array(sums) / max(count, 1)
    variance = squares / max(count, 1) - float(center @ center)
    return center, float(np.sqrt(max(variance, 1e-12)))


def _scale_into(
    out: Float32[np.ndarray, "row dim"],
    embeddings: Float[np.ndarray, "all dim"],
    rows: Int64[np.ndarray, " row"],
    center: np.ndarray,
    scale: float,
) -> None:
    """Write the scaled embeddings of some rows; only a block of them is in float64 at a time."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        out[block] = (embeddings[rows[block]] - center) / scale


def _means(rows: np.ndarray, clusters: np.ndarray, num_clusters: int, worker: Worker) -> np.ndarray:
    """Mean row of each cluster over all workers; the mean of all rows for an empty one."""
    sums = np.zeros((num_clusters, rows.shape[1] + 1))
    for k in range(num_clusters):  # twenty times as fast as numpy.add.at, and with the same bits
        sums[k, 1:] = rows[clusters == k].sum(axis=0, dtype=np.float64)
    sums[:, 0] = np.bincount(clusters, minlength=num_clusters)
    total = worker.all_sum(torch.from_numpy(sums)).numpy()
    overall = total[:, 1:].sum(axis=0) / max(total[:, 0].sum(), 1)
    means = np.where(total[:, :1] > 0, total[:, 1:] / np.maximum(total[:, :1], 1), overall)
    return means.astype(np.float32)
