from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from raydec.learning.randomness import generator_for, integer_seed_for, torch_generator_for
from raydec.learning.sampling import BalancedDraw, BatchPlan, EvenDraw, PairedShuffle
from raydec.learning.shuffle import Shuffle, uniform_at

# Drawn at once, and position by position.
WHOLE_SIZES = [2**20, 0]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def everywhere(num_positions: int) -> np.ndarray:
    return np.arange(num_positions, dtype=np.int64)


def clusters_of(places: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)[places]


def slow_balanced_draw(labels: np.ndarray, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Chunks, as one process draws them that knows all labels: the draw of earlier versions."""
    sizes = np.bincount(labels)
    clusters = np.flatnonzero(sizes)
    quotas = np.full(len(clusters), num_draws // len(clusters), dtype=np.int64)
    quotas[rng.choice(len(clusters), num_draws % len(clusters), replace=False)] += 1
    drawn = []
    for cluster, quota in zip(clusters, quotas, strict=True):
        picks = rng.choice(sizes[cluster], quota, replace=bool(sizes[cluster] < quota))
        drawn.append(np.flatnonzero(labels == cluster)[picks])
    return rng.permutation(np.concatenate(drawn))


@pytest.mark.parametrize("whole_size", WHOLE_SIZES)
@pytest.mark.parametrize("num_draws", [0, 1, 3, 97, 100, 1000, 40_000])
def test_balanced_draw_gives_each_cluster_its_quota(num_draws: int, whole_size: int) -> None:
    sizes = np.array([1, 0, 30, 0, 0, 6000, 0, 0, 0, 9])
    places = BalancedDraw(sizes, num_draws, rng(), whole_size)(everywhere(num_draws))
    assert places.dtype == np.int64 and len(places) == num_draws
    clusters = clusters_of(places, sizes)
    quotas = np.bincount(clusters, minlength=10)[sizes > 0]
    assert quotas.max() - quotas.min() <= 1 and quotas.sum() == num_draws
    for cluster in np.flatnonzero(sizes):
        members = places[clusters == cluster]
        if len(members) <= sizes[cluster]:
            assert len(set(members.tolist())) == len(members)


@pytest.mark.parametrize("num_draws", [7, 100, 1000])
def test_balanced_draw_is_the_one_of_a_process_that_knows_all_labels(num_draws: int) -> None:
    labels = rng(1).choice(7, 300, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05, 0]).astype(np.int32)
    draw = BalancedDraw(np.bincount(labels, minlength=7), num_draws, rng())
    chunks = np.argsort(labels, kind="stable")[draw(everywhere(num_draws))]
    np.testing.assert_array_equal(chunks, slow_balanced_draw(labels, num_draws, rng()))


@pytest.mark.parametrize("whole_size", WHOLE_SIZES)
def test_balanced_draw_shares_the_remainder_fairly_and_shuffles(whole_size: int) -> None:
    sizes = np.array([10, 10, 10])
    extra: Counter[int] = Counter()
    generator = rng()
    for _ in range(3000):
        places = BalancedDraw(sizes, 4, generator, whole_size)(everywhere(4))
        extra.update(clusters_of(places, sizes).tolist())
    assert all(abs(extra[cluster] - 4000) < 150 for cluster in range(3))
    places = BalancedDraw(sizes, 30, generator, whole_size)(everywhere(30))
    assert not np.all(np.diff(clusters_of(places, sizes)) >= 0)


@pytest.mark.parametrize("whole_size", WHOLE_SIZES)
def test_balanced_draw_takes_every_member_of_a_cluster_equally_often(whole_size: int) -> None:
    """With replacement, from 5 chunks, and without, from 5000: more than numpy permutes at once."""
    sizes = np.array([5, 5000])
    small, large, first = np.zeros(5), np.zeros(5000), np.zeros(2)
    generator = rng()
    for _ in range(200):
        places = BalancedDraw(sizes, 2000, generator, whole_size)(everywhere(2000))
        small += np.bincount(places[places < 5], minlength=5)
        large += np.bincount(places[places >= 5] - 5, minlength=5000)
        first += np.bincount(clusters_of(places[:100], sizes), minlength=2)
    assert chisquare(small).pvalue > 1e-3
    assert chisquare(large.reshape(50, 100).sum(axis=1)).pvalue > 1e-3
    # No member is drawn twice, so counts vary less than independent ones: variance 200 * 0.2 * 0.8.
    assert large.sum() == 200 * 1000 and 25 < large.var() < 39
    # The order says nothing of the cluster.
    assert abs(first[0] - 10_000) < 300


def test_draws_need_chunks() -> None:
    with pytest.raises(ValueError, match="empty"):
        BalancedDraw(np.zeros(3, dtype=np.int64), 3, rng())
    with pytest.raises(ValueError, match="empty"):
        EvenDraw(np.zeros(3, dtype=np.int64), rng())


def test_utterances_of_an_even_draw_follow_the_weights() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 0, 3, 3], dtype=np.int32)
    sizes = np.bincount(labels)
    weights = [sum(1 / sizes[c] for c in labels[i : i + 2].tolist()) for i in range(0, 10, 2)]
    assert sum(weights) == pytest.approx(3)  # one per non-empty cluster
    chunks = np.argsort(labels, kind="stable")[EvenDraw(sizes, rng())(everywhere(60_000))]
    observed = np.bincount(chunks // 2, minlength=5)
    assert chisquare(observed, 60_000 * np.array(weights) / 3).pvalue > 1e-3


@pytest.mark.parametrize("whole_size", WHOLE_SIZES)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 64, 65, 1000, 2**16, 2**16 + 1, 100_003])
def test_shuffles_hold_every_value_once(size: int, whole_size: int) -> None:
    values = Shuffle(size, rng(), whole_size)(everywhere(size)) if size or whole_size else everywhere(0)
    np.testing.assert_array_equal(np.sort(values), np.arange(size))
    assert size < 5 or (values != np.arange(size)).any()


def test_shuffles_without_a_table_are_spread_like_chance() -> None:
    size, repeats = 5003, 400
    at_zero, after = np.zeros(size), []
    generator = rng()
    for _ in range(repeats):
        values = Shuffle(size, generator, 0)(everywhere(size))
        at_zero[values[:5]] += 1
        after.append(np.corrcoef(values[:-1], values[1:])[0, 1])
        assert abs((values == everywhere(size)).sum() - 1) < 8  # a Poisson number of fixed points
    assert chisquare(np.add.reduceat(at_zero, range(0, size, 500))[:-1]).pvalue > 1e-3
    assert abs(np.mean(after)) < 4 / np.sqrt(size * repeats)
    # Neighbours end up far from each other: the mean distance of two random values is a third.
    assert np.abs(np.diff(values)).mean() == pytest.approx(size / 3, rel=0.05)


def test_a_shuffle_of_many_billions_answers_at_once() -> None:
    positions = np.array([0, 1, 2, 10**12 - 1])
    values = Shuffle(10**12, rng())(positions)
    assert len(set(values.tolist())) == 4 and values.min() >= 0 and values.max() < 10**12
    np.testing.assert_array_equal(Shuffle(10**12, rng())(positions[::-1]), values[::-1])


def test_uniform_numbers_belong_to_their_positions() -> None:
    numbers = uniform_at(everywhere(90_000), 9, key=5)
    assert chisquare(np.bincount(numbers, minlength=9)).pvalue > 1e-3
    pairs = numbers[:-1] * 9 + numbers[1:]
    assert chisquare(np.bincount(pairs, minlength=81)).pvalue > 1e-3
    np.testing.assert_array_equal(uniform_at(everywhere(90_000)[500:], 9, key=5), numbers[500:])
    assert (uniform_at(everywhere(90_000), 9, key=6) == numbers).mean() == pytest.approx(1 / 9, abs=0.01)
    assert uniform_at(everywhere(4), np.array([1, 1, 2, 2**53]), key=1)[:2].tolist() == [0, 0]


@pytest.mark.parametrize("num_unlabeled", [1, 4, 10, 33])
def test_paired_shuffle_draws_every_unlabeled_row_before_any_again(num_unlabeled: int) -> None:
    draw = PairedShuffle(10, num_unlabeled, rng(1), rng(2))
    rows = draw(everywhere(20))
    assert rows[:10].tolist() == rng(1).permutation(10).tolist()
    pool = rng(2)
    rounds = [pool.permutation(num_unlabeled) for _ in range(-(-10 // num_unlabeled))]
    assert rows[10:].tolist() == (10 + np.concatenate(rounds)[:10]).tolist()
    np.testing.assert_array_equal(draw(np.array([13, 2])), rows[[13, 2]])


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("num_draws", [0, 1, 7, 64, 65])
def test_batches_cut_without_loss(num_draws: int, paired: bool, world_size: int) -> None:
    plan = BatchPlan(num_draws, 8, paired)
    expected = [list(range(start, min(start + 8, num_draws))) for start in range(0, num_draws, 8)]
    if paired:
        expected = [batch + [num_draws + position for position in batch] for batch in expected]
    assert [plan.batch_rows(number) for number in range(len(plan))] == list(map(len, expected))
    positions = [plan.own_positions(rank, world_size).tolist() for rank in range(world_size)]
    joined = []
    for number in range(len(plan)):
        joined.append([])
        for rank in range(world_size):
            own = plan.own(number, rank, world_size)
            joined[-1] += positions[rank][: own.stop - own.start]
            del positions[rank][: own.stop - own.start]
    assert joined == expected and not any(positions)


def test_generators_depend_on_seed_and_path_only() -> None:
    def draw(*key: int | str) -> int:
        return int(generator_for(31, *key).integers(2**62))

    keys: list[tuple[int | str, ...]] = [
        (),
        (1,),
        ("1",),
        (1, 2),
        (12,),
        ("draw", 1),
        ("draw", 2),
        ("draw1",),
    ]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw("draw", 1) == draw("draw", 1)
    assert generator_for(30, "draw").random() != generator_for(31, "draw").random()
    assert torch.equal(
        torch.rand(3, generator=torch_generator_for(31, "noise")),
        torch.rand(3, generator=torch_generator_for(31, "noise")),
    )
    assert 0 <= integer_seed_for(31, "kmeans") < 2**31


def test_generators_are_the_same_in_every_process() -> None:
    code = "from raydec.learning.randomness import integer_seed_for; print(integer_seed_for(31, 'a', 2))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == integer_seed_for(31, "a", 2)
