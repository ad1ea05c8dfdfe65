from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.stats import entropy

from raydec.learning.alignment import (
    cluster_health,
    match_clusters,
    normalized_mutual_information,
    rename_clusters,
    shared_chunks,
)
from raydec.learning.clusterer import ClusterAssignment

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=40)


def two(chunks: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(chunks, dtype=np.int32).reshape(-1, 2)
    return both[:, 0].copy(), both[:, 1].copy()


@settings(deadline=None)
@given(pairs)
def test_mutual_information_is_what_the_joint_says_over_the_mean_entropy(
    chunks: list[tuple[int, int]],
) -> None:
    a, b = two(chunks)
    joint = np.zeros((5, 5))
    np.add.at(joint, (a, b), 1)
    entropies = entropy(joint.sum(0)) + entropy(joint.sum(1)) if chunks else 0.0
    expected = 2 * (entropies - entropy(joint.ravel())) / entropies if entropies > 0 else 1.0
    assert normalized_mutual_information(shared_chunks(a, b, 5)) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(pairs)
def test_matching_is_the_best_of_all_permutations(chunks: list[tuple[int, int]]) -> None:
    previous, labels = two(chunks)
    permutation = match_clusters(shared_chunks(labels, previous, 5))
    assert sorted(permutation.tolist()) == list(range(5))
    best = max(int((np.array(p)[labels] == previous).sum()) for p in permutations(range(5)))
    assert (permutation[labels] == previous).sum() == best


def test_a_shuffled_assignment_is_named_back() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=300).astype(np.int32)
    centroids = rng.normal(size=(6, 3)).astype(np.float32)
    old = ClusterAssignment(
        labels, centroids, 1.0, np.bincount(labels, minlength=6), 3, "torch", {"fit_s": 1.0}
    )
    shuffled = rename_clusters(old, rng.permutation(6))
    assert (shuffled.labels != old.labels).any()
    # A chunk's centroid and its cluster's size follow the new name.
    np.testing.assert_array_equal(shuffled.centroids[shuffled.labels], old.centroids[old.labels])
    assert shuffled.sizes.tolist() == np.bincount(shuffled.labels, minlength=6).tolist()
    back = rename_clusters(shuffled, match_clusters(shared_chunks(shuffled.labels, old.labels, 6)))
    for name in ("labels", "centroids", "sizes"):
        np.testing.assert_array_equal(getattr(back, name), getattr(old, name))
    assert (back.inertia, back.num_iterations, back.timings) == (1.0, 3, {"fit_s": 1.0})
    assert back.labels.dtype == np.int32


def test_assignments_of_different_chunks_are_refused() -> None:
    a, b = np.zeros(3, dtype=np.int32), np.zeros(4, dtype=np.int32)
    with pytest.raises((ValueError, TypeCheckError)):
        shared_chunks(a, b, 2)


def test_health_counts_empty_and_largest() -> None:
    assert cluster_health(np.array([3, 0, 1, 0, 0])) == {"empty": 3.0, "largest_share": 0.75}
    assert cluster_health(np.array([0, 0])) == {"empty": 2.0, "largest_share": 0.0}
