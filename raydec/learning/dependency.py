"""How much a grouping says about emotion: the emotional dependency of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64

from raydec.learning.randomness import repeat_blocks


@dataclass(frozen=True)
class Dependency:
    """How much clusters say about a number.

    Attributes:
        eta_squared: share of the variance that lies between clusters.
        p_value: how often shuffled clusters say as much.
    """

    eta_squared: float
    p_value: float


@dataclass(frozen=True)
class EmotionInformation:
    """How much clusters say about the emotion class.

    Attributes:
        mutual_information_nats: 0 if nothing.
        normalized: over the mean of both entropies, 0 to 1.
        num_utterances: that have an emotion class.
    """

    mutual_information_nats: float
    normalized: float
    num_utterances: int


def most_frequent_clusters(
    chunk_clusters: Int[np.ndarray, " chunk"], num_chunks: int
) -> Int64[np.ndarray, " utterance"]:
    """The cluster of an utterance: the most frequent one of its chunks, the lowest number on ties.

    Args:
        chunk_clusters: the cluster of each chunk, in order.
        num_chunks: chunks per utterance.
    """
    by_utterance = chunk_clusters.reshape(-1, num_chunks)
    return np.array([np.bincount(row).argmax() for row in by_utterance], dtype=np.int64)


def eta_squared(values: np.ndarray, clusters: np.ndarray) -> float:
    """Share of the variance of ``values`` that lies between clusters (eta squared of one-way ANOVA).

    Args:
        values: float ``[item]``; NaN items are left out.
        clusters: int ``[item]``.

    Returns:
        0 (clusters say nothing) to 1 (they say all); 0 when the values do not vary.
    """
    known = np.isfinite(values)
    values, clusters = values[known].astype(np.float64), clusters[known]
    if not len(values):
        return 0.0
    centred = values - values.mean()
    total = float(centred @ centred)
    if total == 0.0:
        return 0.0
    sums = np.bincount(clusters, weights=centred)
    counts = np.bincount(clusters)
    between = float(np.sum(sums[counts > 0] ** 2 / counts[counts > 0]))
    return between / total


def cluster_dependency(
    values: Float[np.ndarray, "item"],
    clusters: Int[np.ndarray, "item"],
    rng: np.random.Generator,
    *,
    num_permutations: int = 1000,
) -> Dependency:
    """Eta squared of a number given its cluster, and a permutation test of no dependency.

    Items must be exchangeable: pass one item per utterance, because the chunks of one utterance share its
    label and would make any clustering look significant.

    Args:
        values: NaN items are left out.
        clusters: the cluster of each item.
        rng: where the randomness comes from.
        num_permutations: the p-value is at least 1 / (num_permutations + 1).
    """
    known = ~np.isnan(values)
    observed = eta_squared(values, clusters)
    centred = values[known].astype(np.float64)
    if not len(centred) or np.ptp(centred) == 0:
        return Dependency(observed, 1.0)
    centred -= centred.mean()
    ids, sizes = np.unique(clusters[known], return_inverse=True, return_counts=True)[1:]
    total = centred @ centred
    # Rounding must not make an equal partition count as a smaller one.
    as_much = observed * (1 - 1e-9) - 1e-12
    num_reached = 0
    for count in repeat_blocks(num_permutations, len(centred)):
        shuffled = rng.permuted(np.broadcast_to(centred, (count, len(centred))), axis=1)
        cells = np.arange(count)[:, None] * len(sizes) + ids
        sums = np.bincount(cells.reshape(-1), shuffled.reshape(-1), count * len(sizes)).reshape(count, -1)
        num_reached += int(((sums**2 / sizes).sum(1) / total >= as_much).sum())
    return Dependency(observed, (1 + num_reached) / (1 + num_permutations))


def emotion_information(
    emotions: Sequence[str | None] | np.ndarray, clusters: Int[np.ndarray, "utterance"]
) -> EmotionInformation:
    """Mutual information of the emotion class and the cluster of utterances.

    Args:
        emotions: None where unknown; such utterances are left out.
        clusters: the cluster of each utterance.
    """
    from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

    known = np.array([emotion is not None for emotion in emotions], dtype=bool)
    if not known.any():
        return EmotionInformation(0.0, 0.0, 0)
    classes = np.array([emotion for emotion in emotions if emotion is not None])
    return EmotionInformation(
        float(mutual_info_score(classes, clusters[known])),
        float(normalized_mutual_info_score(classes, clusters[known])),
        int(known.sum()),
    )
