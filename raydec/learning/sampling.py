"""Draws of the rows of an epoch, and their order.

Draws are global: every worker makes the same draw from the same generator and takes its slice of each batch,
so training does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Int64


def balanced_draw(
    labels: Int[np.ndarray, "chunk"],
    num_draws: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "draw"]:
    """Draw chunks uniformly over the non-empty clusters, in random order.

    Each non-empty cluster gets ``num_draws // num_non_empty`` draws; the remainder goes, one draw each, to
    clusters chosen at random. A cluster with fewer chunks than its quota is drawn with replacement, any other
    without.

    Args:
        labels: cluster of each chunk, at least 0.
        num_draws: length of the result.
        rng: source of randomness.

    Returns:
        Chunk indices.

    Raises:
        ValueError: there is no chunk to draw.
    """
    if not len(labels):
        raise ValueError("cannot draw from an empty set of chunks")
    sizes = np.bincount(labels)
    clusters = np.flatnonzero(sizes)
    quotas = np.full(len(clusters), num_draws // len(clusters), dtype=np.int64)
    quotas[rng.choice(len(clusters), num_draws % len(clusters), replace=False)] += 1
    members = _by_cluster(labels, len(sizes))
    starts = np.cumsum(sizes) - sizes
    drawn = [
        members[starts[cluster] + rng.choice(sizes[cluster], quota, replace=bool(sizes[cluster] < quota))]
        for cluster, quota in zip(clusters, quotas, strict=True)
    ]
    return rng.permutation(np.concatenate(drawn))


def utterance_draw(
    labels: Int[np.ndarray, "chunk"],
    num_chunks_per_utterance: int,
    num_draws: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "draw"]:
    """Draw whole utterances with replacement, preferring those with chunks in small clusters.

    The weight of an utterance is the sum over its chunks of 1 / size of the chunk's cluster, which gives
    every non-empty cluster the same total weight.

    Args:
        labels: cluster of each chunk, utterance by utterance.
        num_chunks_per_utterance: chunks of every utterance.
        num_draws: length of the result.
        rng: source of randomness.

    Returns:
        Utterance indices.

    Raises:
        ValueError: no chunks, or not a whole number of utterances.
    """
    if not len(labels) or len(labels) % num_chunks_per_utterance:
        raise ValueError(f"{len(labels)} labels are not utterances of {num_chunks_per_utterance} chunks")
    weights = (1.0 / np.bincount(labels).clip(min=1))[labels]
    weights = weights.reshape(-1, num_chunks_per_utterance).sum(axis=1)
    return rng.choice(len(weights), num_draws, p=weights / weights.sum())


def shuffled(num_rows: int, rng: np.random.Generator) -> Int64[np.ndarray, "row"]:
    """Every row once, in random order."""
    return rng.permutation(np.arange(num_rows, dtype=np.int64))


def batches(draws: Int64[np.ndarray, "draw"], batch_size: int) -> Iterator[Int64[np.ndarray, "batch"]]:
    """Split draws into global batches; the last one may be smaller."""
    for start in range(0, len(draws), batch_size):
        yield draws[start : start + batch_size]


def _by_cluster(labels: Int[np.ndarray, "chunk"], num_clusters: int) -> Int64[np.ndarray, "chunk"]:
    """Chunk indices grouped by cluster."""
    # numpy uses radix sort for 16-bit integers, which takes linear time.
    keys = labels.astype(np.uint16) if num_clusters <= 2**16 else labels
    return np.argsort(keys, kind="stable")
