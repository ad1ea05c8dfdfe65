"""Dependency of clusters and emotion: eta squared, a permutation test, and mutual information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from raydec.learning.randomness import repeat_blocks


@dataclass(frozen=True)
class Dependency:
    """Dependency of a number on clusters.

    Attributes:
        eta_squared: share of the variance that lies between clusters.
        epsilon_squared: the same, corrected for the share by chance, which grows with the number of clusters.
        p_value: share of permutations with at least the observed dependency.
        within_speakers: whether values were permuted within each speaker, not among all.
    """

    eta_squared: float
    epsilon_squared: float
    p_value: float
    within_speakers: bool


@dataclass(frozen=True)
class EmotionInformation:
    """Dependency of the emotion class on clusters.

    Attributes:
        mutual_information_nats: 0 if they are independent.
        normalized: divided by the mean of both entropies, 0 to 1.
        num_utterances: number of utterances with an emotion class.
    """

    mutual_information_nats: float
    normalized: float
    num_utterances: int


def most_frequent_clusters(
    chunk_clusters: Int[np.ndarray, " chunk"], num_chunks: int
) -> Int64[np.ndarray, " utterance"]:
    """The cluster of each utterance: the most frequent one of its chunks, the lowest number on ties.

    Args:
        chunk_clusters: the cluster of each chunk, in order.
        num_chunks: chunks per utterance.
    """
    by_utterance = chunk_clusters.reshape(-1, num_chunks)
    return np.array([np.bincount(row).argmax() for row in by_utterance], dtype=np.int64)


def eta_squared(values: np.ndarray, clusters: np.ndarray) -> float:
    """Share of the variance of ``values`` that lies between clusters (eta squared of one-way ANOVA).

    Args:
        values: float ``[item]``; NaN items are ignored.
        clusters: int ``[item]``.

    Returns:
        0 (no dependency) to 1 (clusters determine the value); 0 if the values do not vary.
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


def epsilon_squared(eta: float, num_items: int, num_clusters: int) -> float:
    """Eta squared corrected for chance: 0 on average without dependency, whatever the number of clusters.

    Args:
        eta: eta squared.
        num_items: number of items with a known value.
        num_clusters: number of clusters with such an item.

    Returns:
        At most 1; below 0 if eta squared is smaller than by chance; 0 if every item has its own cluster.
    """
    if num_items <= num_clusters:
        return 0.0
    return 1.0 - (1.0 - eta) * (num_items - 1) / (num_items - num_clusters)


def cluster_dependency(
    values: Float[np.ndarray, "item"],
    clusters: Int[np.ndarray, "item"],
    rng: np.random.Generator,
    *,
    speakers: Sequence[str | None] | None = None,
    num_permutations: int = 1000,
) -> Dependency:
    """Eta squared of a number given its cluster, and a permutation test of no dependency.

    Values are permuted among the items of each speaker, after subtracting the speaker's mean. Otherwise
    clusters that merely separate speakers would be significant, although they are unrelated to how one
    speaker's emotion varies. Items of unknown speakers are permuted among themselves. Without speakers, or
    with one, values are permuted among all items.

    Items must be exchangeable within a speaker: pass one item per utterance, because the chunks of one
    utterance share its label and would make any clustering look significant.

    Args:
        values: NaN items are ignored.
        clusters: the cluster of each item.
        rng: source of randomness.
        speakers: speaker of each item; None if unknown.
        num_permutations: the p-value is at least 1 / (num_permutations + 1).
    """
    known = ~np.isnan(values)
    if not known.any():
        return Dependency(0.0, 0.0, 1.0, False)
    ids, sizes = np.unique(clusters[known], return_inverse=True, return_counts=True)[1:]
    observed = eta_squared(values, clusters)
    corrected = epsilon_squared(observed, int(known.sum()), len(sizes))
    groups = _speaker_groups(speakers, known)
    within = len(groups) > 1
    residuals = values[known].astype(np.float64)
    for members in groups:
        residuals[members] -= residuals[members].mean()
    # Equal values leave only rounding errors, which must not be tested.
    if not np.any(np.abs(residuals) > 1e-9 * np.abs(values[known]).max(initial=1.0)):
        return Dependency(observed, corrected, 1.0, within)
    reached = _count_as_large(residuals, ids, sizes, groups, rng, num_permutations)
    return Dependency(observed, corrected, (1 + reached) / (1 + num_permutations), within)


def _speaker_groups(speakers: Sequence[str | None] | None, known: np.ndarray) -> list[np.ndarray]:
    """Indices of each speaker's items among the known values; those of unknown speakers come last."""
    num_items = int(known.sum())
    if speakers is None:
        return [np.arange(num_items)]
    names = [name for name, keep in zip(speakers, known, strict=True) if keep]
    groups: dict[str | None, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name, []).append(place)
    ordered = sorted(groups, key=lambda name: (name is None, name or ""))
    return [np.array(groups[name]) for name in ordered]


def _count_as_large(
    residuals: Float64[np.ndarray, "item"],
    ids: Int64[np.ndarray, "item"],
    sizes: Int64[np.ndarray, "cluster"],
    groups: list[np.ndarray],
    rng: np.random.Generator,
    num_permutations: int,
) -> int:
    """Permutations within the groups whose variance between clusters is at least the observed one."""
    observed = float((np.bincount(ids, residuals) ** 2 / sizes).sum())
    # The margin keeps rounding from making equal variances count as smaller.
    as_much = observed * (1 - 1e-9) - 1e-12 * float(residuals @ residuals)
    # One random stream per group, so that results do not depend on the size of the blocks.
    streams = [rng] if len(groups) == 1 else rng.spawn(len(groups))
    num_reached = 0
    for count in repeat_blocks(num_permutations, len(residuals)):
        shuffled = np.empty((count, len(residuals)))
        for members, stream in zip(groups, streams, strict=True):
            block = np.broadcast_to(residuals[members], (count, len(members)))
            shuffled[:, members] = stream.permuted(block, axis=1)
        cells = np.arange(count)[:, None] * len(sizes) + ids
        sums = np.bincount(cells.reshape(-1), shuffled.reshape(-1), count * len(sizes)).reshape(count, -1)
        num_reached += int(((sums**2 / sizes).sum(1) >= as_much).sum())
    return num_reached


def emotion_information(
    emotions: Sequence[str | None] | np.ndarray, clusters: Int[np.ndarray, "utterance"]
) -> EmotionInformation:
    """Mutual information of the emotion class and the cluster of utterances.

    Args:
        emotions: None if unknown; such utterances are ignored.
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
