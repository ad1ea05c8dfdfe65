"""How much a grouping says about emotion: the emotional dependency of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from raydec.learning.randomness import repeat_blocks


@dataclass(frozen=True)
class Dependency:
    """How much clusters say about a number.

    Attributes:
        eta_squared: share of the variance that lies between clusters.
        epsilon_squared: the same corrected for chance, which grows with the number of clusters.
        p_value: how often shuffled values depend on the clusters as much.
        within_speakers: whether values were shuffled within each speaker, as opposed to among all.
    """

    eta_squared: float
    epsilon_squared: float
    p_value: float
    within_speakers: bool


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


def epsilon_squared(eta: float, num_items: int, num_clusters: int) -> float:
    """Eta squared corrected for chance: 0 on average when clusters say nothing, however many they are.

    Args:
        eta: eta squared.
        num_items: with a known value.
        num_clusters: that have such an item.

    Returns:
        At most 1; below 0 where clusters say less than chance; 0 when every item has a cluster of its own.
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

    Values are permuted among the items of one speaker, and compared after each speaker's mean is taken away:
    clusters that only tell speakers apart say nothing of how one speaker's emotion varies, although their eta
    squared can be large. Items of unknown speakers are permuted among themselves. Without speakers, or with
    one, values are permuted among all items.

    Items must be exchangeable within a speaker: pass one item per utterance, because the chunks of one
    utterance share its label and would make any clustering look significant.

    Args:
        values: NaN items are left out.
        clusters: the cluster of each item.
        rng: where the randomness comes from.
        speakers: of each item; None: unknown.
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
    # Equal values leave rounding behind, which is nothing to test.
    if not np.any(np.abs(residuals) > 1e-9 * np.abs(values[known]).max(initial=1.0)):
        return Dependency(observed, corrected, 1.0, within)
    reached = _count_as_large(residuals, ids, sizes, groups, rng, num_permutations)
    return Dependency(observed, corrected, (1 + reached) / (1 + num_permutations), within)


def _speaker_groups(speakers: Sequence[str | None] | None, known: np.ndarray) -> list[np.ndarray]:
    """Places of each speaker's items among those that are known, the unknown speakers' last."""
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
    # Rounding must not make an equal partition count as a smaller one.
    as_much = observed * (1 - 1e-9) - 1e-12 * float(residuals @ residuals)
    # A stream per group, so that the size of a block of permutations changes nothing.
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
