from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raydec.evaluation import statistics
from raydec.evaluation.statistics import (
    bootstrap_ccc,
    compare_ccc,
)
from raydec.learning import randomness
from raydec.learning.ccc import concordance
from raydec.learning.dependency import cluster_dependency, emotion_information
from raydec.learning.resampling import resampling_units


def scores(n: int = 300, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=n)
    return 0.7 * target + noise * rng.normal(size=n) + 0.2, target


def ccc(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    dx, dy = x - x.mean(axis, keepdims=True), y - y.mean(axis, keepdims=True)
    offset = x.mean(axis) - y.mean(axis)
    return 2 * (dx * dy).mean(axis) / ((dx**2).mean(axis) + (dy**2).mean(axis) + offset**2)


def test_interval_over_utterances_equals_scipys() -> None:
    x, y = scores()
    rng = np.random.default_rng(1)
    ours = bootstrap_ccc(x, y, None, rng, num_resamples=20_000)
    theirs = stats.bootstrap(
        (x, y), ccc, paired=True, vectorized=True, method="percentile", n_resamples=20_000, rng=2
    ).confidence_interval
    assert (ours.unit, ours.num_units, ours.num_utterances) == ("utterance", 300, 300)
    assert ours.ccc == pytest.approx(float(ccc(x, y)))
    # Both ends have a Monte Carlo error of about 0.0006 here.
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_every_resample_of_speakers_is_scored_as_its_rows_would_be() -> None:
    x, y = scores(60)
    y[::7] = np.nan
    speakers = [None if i % 10 == 0 else f"s{i % 4}" for i in range(60)]
    labeled = ~np.isnan(y)
    units, unit = resampling_units(speakers, labeled)
    assert unit == "speaker"
    num_unknown = sum(speakers[i] is None for i in np.flatnonzero(labeled))
    assert units.max() + 1 == 4 + num_unknown
    for counts in np.random.default_rng(0).integers(0, 3, size=(20, units.max() + 1)):
        rows = [np.flatnonzero(units == unit) for unit in np.repeat(np.arange(len(counts)), counts)]
        drawn = np.concatenate(rows)
        sums = statistics._unit_sums(x[labeled] + 50, y[labeled] + 50, units)
        got = statistics._ccc_of_sums((counts @ sums)[None])[0]
        assert got == pytest.approx(concordance(x[labeled][drawn], y[labeled][drawn]), rel=1e-9)


def test_interval_over_speakers_covers_what_one_over_utterances_misses() -> None:
    """With a strong speaker effect, intervals over utterances are too narrow for new speakers."""

    def sample(seed: int) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(25), 12)
        y = rng.normal(size=25)[who] + 0.3 * rng.normal(size=300)
        x = 0.5 * y + rng.normal(size=25)[who] + 0.2 * rng.normal(size=300)
        return x, y, [f"s{i}" for i in who]

    # Population moments of the model above.
    variance_y, variance_x = 1 + 0.09, 0.25 * 1.09 + 1 + 0.04
    truth = 2 * 0.5 * variance_y / (variance_x + variance_y)
    covered = {"speaker": 0, "utterance": 0}
    for seed in range(60):
        x, y, speakers = sample(seed)
        for who in (speakers, None):
            estimate = bootstrap_ccc(x, y, who, np.random.default_rng(seed), num_resamples=400)
            covered[estimate.unit] += estimate.low <= truth <= estimate.high
    assert covered["speaker"] >= 50
    assert covered["utterance"] < 40


@pytest.mark.parametrize(
    ("speakers", "unit"),
    [
        (None, "utterance"),
        ([None] * 20, "utterance"),
        (["a"] * 20, "utterance"),
        (["a", "b"] * 10, "speaker"),
    ],
)
def test_falls_back_to_utterances(speakers: list[str | None] | None, unit: str) -> None:
    x, y = scores(20)
    assert bootstrap_ccc(x, y, speakers, np.random.default_rng(0), num_resamples=10).unit == unit


def test_degenerate_inputs_score_zero() -> None:
    nothing = np.full(5, np.nan)
    for x, y in [(nothing, nothing), (np.full(7, 0.1), np.full(7, 0.1)), (np.ones(1), np.zeros(1))]:
        estimate = bootstrap_ccc(x, y, None, np.random.default_rng(0), num_resamples=20)
        assert (estimate.ccc, estimate.low, estimate.high) == (0, 0, 0)


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = scores()
    clusters = np.random.default_rng(0).integers(3, size=300)
    whole = (
        bootstrap_ccc(x, y, None, np.random.default_rng(0)),
        cluster_dependency(y, clusters, np.random.default_rng(0)),
        cluster_dependency(y, clusters, np.random.default_rng(0), speakers=["a", "b", "c"] * 100),
    )
    monkeypatch.setattr(randomness, "BLOCK_VALUES", 1000)
    pieces = (
        bootstrap_ccc(x, y, None, np.random.default_rng(0)),
        cluster_dependency(y, clusters, np.random.default_rng(0)),
        cluster_dependency(y, clusters, np.random.default_rng(0), speakers=["a", "b", "c"] * 100),
    )
    assert whole == pieces


def test_difference_equals_a_slow_paired_bootstrap() -> None:
    x, y = scores(120)
    other = x + 0.3 * np.random.default_rng(3).normal(size=120)
    result = compare_ccc(x, other, y, None, np.random.default_rng(1), num_resamples=5000)
    rows = np.random.default_rng(2).integers(120, size=(5000, 120))
    slow = ccc(x[rows], y[rows]) - ccc(other[rows], y[rows])
    assert result.difference == pytest.approx(float(ccc(x, y) - ccc(other, y)))
    assert (result.low, result.high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.004)
    expected = 2 * min((slow <= 0).mean(), (slow >= 0).mean())
    assert result.p_value == pytest.approx(expected, abs=0.02)


def test_difference_of_equal_models_is_none_and_of_far_ones_is_certain() -> None:
    x, y = scores()
    same = compare_ccc(x, x.copy(), y, None, np.random.default_rng(0), num_resamples=99)
    assert (same.difference, same.p_value) == (0, 1)
    far = compare_ccc(x, -x, y, None, np.random.default_rng(0), num_resamples=99)
    assert far.p_value == pytest.approx(2 / 100)
    assert far.low > 0


@pytest.mark.parametrize("num_speakers", [2, 4, 30])
def test_a_handful_of_speakers_who_agree_are_no_proof(num_speakers: int) -> None:
    x, y = scores()
    speakers = [f"s{i % num_speakers}" for i in range(len(y))]
    far = compare_ccc(x, -x, y, speakers, np.random.default_rng(0), num_resamples=999)
    sign_test = stats.binomtest(num_speakers, num_speakers).pvalue
    assert far.p_value == pytest.approx(max(sign_test, 2 / 1000))


def test_null_p_values_of_the_difference_are_uniform_enough() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        y = rng.normal(size=80)
        first, second = (y + rng.normal(size=80) for _ in range(2))
        p_values.append(compare_ccc(first, second, y, None, rng, num_resamples=199).p_value)
    rejected = np.mean(np.array(p_values) < 0.05)
    assert 0.01 < rejected < 0.12


def test_eta_squared_and_p_value_equal_scipys() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(4, size=80) * 3
    values = rng.normal(size=80) + 0.12 * clusters / 3
    groups = [values[clusters == k] for k in np.unique(clusters)]
    f = stats.f_oneway(*groups).statistic
    between, within = len(groups) - 1, 80 - len(groups)
    ours = cluster_dependency(np.append(values, np.nan), np.append(clusters, 0), rng, num_permutations=4999)
    assert ours.eta_squared == pytest.approx(between * f / (between * f + within))
    theirs = stats.permutation_test(
        groups, lambda *g: stats.f_oneway(*g).statistic, n_resamples=1999, alternative="greater", rng=1
    )
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.02)
    assert 0.01 < ours.p_value < 0.9  # else the comparison shows nothing


def test_dependency_of_a_perfect_partition_and_of_nothing() -> None:
    clusters = np.repeat(np.arange(3), 20)
    rng = np.random.default_rng(0)
    perfect = cluster_dependency(clusters.astype(float), clusters, rng, num_permutations=99)
    assert (perfect.eta_squared, perfect.p_value) == (pytest.approx(1), pytest.approx(1 / 100))
    one_cluster = cluster_dependency(rng.normal(size=60), np.zeros(60, dtype=int), rng, num_permutations=99)
    assert (one_cluster.eta_squared, one_cluster.p_value) == (pytest.approx(0, abs=1e-12), 1)
    for values in (np.ones(60), np.full(60, np.nan)):
        assert cluster_dependency(values, clusters, rng).p_value == 1


def test_emotion_information_equals_its_definition() -> None:
    emotions = ["angry"] * 4 + ["sad"] * 6 + [None] * 2
    clusters = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 0, 0])
    joint = np.array([[3, 1, 0], [0, 4, 2]]) / 10
    product = joint.sum(1, keepdims=True) * joint.sum(0)
    information = stats.entropy(joint.ravel(), product.ravel())
    result = emotion_information(emotions, clusters)
    assert result.mutual_information_nats == pytest.approx(information)
    mean_entropy = (stats.entropy(joint.sum(0)) + stats.entropy(joint.sum(1))) / 2
    assert result.normalized == pytest.approx(information / mean_entropy)
    assert result.num_utterances == 10
    assert emotion_information([None, None], np.zeros(2, dtype=int)).num_utterances == 0


def rejections(make, num_simulations: int, *, use_speakers: bool = True) -> float:
    """Share of simulated corpora in which the test rejects at 5%."""
    count = 0
    for number in range(num_simulations):
        rng = np.random.default_rng(number)
        values, clusters, speakers = make(rng)
        names = [f"s{speaker}" for speaker in speakers] if use_speakers else None
        found = cluster_dependency(values, clusters, rng, speakers=names, num_permutations=99)
        count += found.p_value <= 0.05
    return count / num_simulations


def speakers_with_habits(rng: np.random.Generator, sizes=(10,) * 8, dependency: float = 0.0):
    """Labels and clusters depend on the speaker each, and on each other only as far as asked for."""
    speakers = np.repeat(np.arange(len(sizes)), sizes)
    habits = rng.dirichlet(np.full(4, 0.5), size=len(sizes))
    clusters = np.array([rng.choice(4, p=habits[speaker]) for speaker in speakers])
    values = rng.normal(size=len(sizes))[speakers] + 0.7 * rng.normal(size=len(speakers))
    return values + dependency * clusters, clusters, speakers


def test_the_permutation_test_rejects_as_often_as_it_says() -> None:
    assert rejections(speakers_with_habits, 1000) <= 0.07
    # Of very different sizes, some with a single utterance.
    uneven = (40, 25, 10, 5, 5, 2, 1, 1)
    assert rejections(lambda rng: speakers_with_habits(rng, uneven), 1000) <= 0.07
    # Neither depends on the speaker: the plain case is not spoiled.
    assert (
        rejections(lambda rng: (rng.normal(size=80), rng.integers(4, size=80), np.arange(80) % 8), 1000)
        <= 0.07
    )


def test_permuting_among_all_utterances_would_reject_far_too_often() -> None:
    assert rejections(speakers_with_habits, 200, use_speakers=False) > 0.3


def test_the_permutation_test_finds_what_is_there() -> None:
    assert rejections(lambda rng: speakers_with_habits(rng, dependency=0.5), 200) > 0.9


def test_epsilon_squared_is_the_textbooks_and_zero_by_chance() -> None:
    rng = np.random.default_rng(1)
    values, clusters = rng.normal(size=90), rng.integers(6, size=90)
    found = cluster_dependency(values, clusters, rng, num_permutations=99)
    groups = [values[clusters == cluster] for cluster in range(6)]
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (90 - 6)
    total = ((values - values.mean()) ** 2).sum()
    between = sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups)
    assert found.epsilon_squared == pytest.approx((between - 5 * within) / total)
    draws = [cluster_dependency(rng.normal(size=40), rng.integers(10, size=40), rng, num_permutations=1)
             for _ in range(400)]  # fmt: skip
    assert abs(np.mean([draw.epsilon_squared for draw in draws])) < 0.02
    assert np.mean([draw.eta_squared for draw in draws]) > 0.2, "which is what is corrected for"
    alone = cluster_dependency(values[:5], np.arange(5), rng, num_permutations=9)
    assert (alone.eta_squared, alone.epsilon_squared) == (pytest.approx(1), 0)


def test_the_test_says_how_it_permuted_and_what_cannot_be_permuted_proves_nothing() -> None:
    rng = np.random.default_rng(2)
    values, clusters = rng.normal(size=12), rng.integers(3, size=12)

    def tested(speakers):
        return cluster_dependency(values, clusters, rng, speakers=speakers, num_permutations=99)

    assert not tested(None).within_speakers
    assert not tested([None] * 12).within_speakers
    assert not tested(["a"] * 12).within_speakers
    assert tested(["a"] * 6 + ["b"] * 6).within_speakers
    assert tested(["a"] * 6 + [None] * 6).within_speakers
    one_each = tested([f"s{number}" for number in range(12)])
    assert (one_each.p_value, one_each.within_speakers) == (1, True)
    # A label that is the same for all of a speaker's utterances, whatever their clusters.
    constant = cluster_dependency(
        np.repeat([1.1, 2.3, 5.7], 20),
        np.repeat([0, 1, 2], 20),
        rng,
        speakers=np.repeat(["a", "b", "c"], 20).tolist(),
    )
    assert (constant.eta_squared, constant.p_value) == (pytest.approx(1), 1)
