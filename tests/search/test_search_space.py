"""Reading a search space, and drawing from it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from raydec.errors import UserError
from raydec.search.space import Choice, FloatRange, IntRange, clip, parse_space, parse_variants


def test_dotted_and_nested_keys_are_the_same_space() -> None:
    dotted = {"clustering.num_clusters": [5, 10], "loss.cluster_weight": {"loguniform": [0.05, 5]}}
    nested = {"clustering": {"num_clusters": [5, 10]}, "loss": {"cluster_weight": {"loguniform": [0.05, 5]}}}
    half = {"clustering.num_clusters": [5, 10], "loss": {"cluster_weight": {"loguniform": [0.05, 5]}}}
    expected = {
        "clustering.num_clusters": Choice((5, 10)),
        "loss.cluster_weight": FloatRange(0.05, 5.0, log=True),
    }
    assert parse_space(dotted) == parse_space(nested) == parse_space(half) == expected


def test_the_command_line_has_the_last_word_on_a_key_that_the_file_has_dotted() -> None:
    merged = {"clustering.num_clusters": {"randint": [5, 60]}, "clustering": {"num_clusters": [8, 16]}}
    assert parse_space(merged) == {"clustering.num_clusters": Choice((8, 16))}


@pytest.mark.parametrize(
    ("node", "domain"),
    [
        ([1, 2], Choice((1, 2))),
        ({"choice": [1, 2]}, Choice((1, 2))),
        ({"grid": [1, 2]}, Choice((1, 2), grid=True)),
        ({"uniform": [0, 2]}, FloatRange(0.0, 2.0)),
        ({"loguniform": [0.1, 2]}, FloatRange(0.1, 2.0, log=True)),
        ({"quniform": [0, 1, 0.25]}, FloatRange(0.0, 1.0, step=0.25)),
    ],
)
def test_every_form_is_read(node: Any, domain: Any) -> None:
    assert parse_space({"loss.cluster_weight": node}) == {"loss.cluster_weight": domain}


def test_randint_and_lists_of_lists_are_read() -> None:
    space = {"clustering.num_clusters": {"randint": [5, 60]}, "data.attributes": [["arousal"], ["valence"]]}
    assert parse_space(space) == {
        "clustering.num_clusters": IntRange(5, 60),
        "data.attributes": Choice((["arousal"], ["valence"])),
    }


def test_a_plain_list_is_a_grid_where_the_searcher_is_one() -> None:
    assert parse_space({"loss.cluster_weight": [1, 2]}, default_grid=True) == {
        "loss.cluster_weight": Choice((1, 2), grid=True)
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"clustering.num_cluster": [5]}, "did you mean 'clustering.num_clusters'"),
        ({"clustering": {"num_cluster": [5]}}, "did you mean 'clustering.num_clusters'"),
        ({"clustring": {"num_clusters": [5]}}, "unknown key 'clustring'"),
        ({"clustering.num_clusters": 5}, "must be a list of values"),
        ({"clustering.num_clusters": {"randit": [5, 6]}}, "exactly one of grid"),
        ({"clustering.num_clusters": {"randint": [5, 6], "choice": [5]}}, "exactly one of grid"),
        ({"clustering.num_clusters": []}, "no values"),
        ({"clustering.num_clusters": [5, 6, 5]}, "lists a value twice"),
        ({"clustering.num_clusters": {"randint": [5.0, 6.0]}}, "takes [low, high]"),
        ({"clustering.num_clusters": {"randint": [5, True]}}, "takes [low, high]"),
        ({"clustering.num_clusters": {"randint": 5}}, "takes a list"),
        ({"clustering.num_clusters": {"randint": [9, 5]}}, "low must be less than high"),
        ({"loss.cluster_weight": {"loguniform": [0, 1]}}, "greater than 0"),
        ({"loss.cluster_weight": {"quniform": [0, 1]}}, "[low, high, step]"),
        ({"loss.cluster_weight": {"quniform": [0, 1, 2]}}, "step must fit"),
        ({"ray.num_workers": [1, 2]}, "does not affect what a trial learns"),
        ({"name": ["a"]}, "does not affect what a trial learns"),
        ({"seed": [1, 2]}, "search.seeds"),
        ({"data.store": ["a", "b"]}, "one search for each feature store"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_that_names_it(space: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_space(space)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_variants_are_single_values() -> None:
    variant = {"model.kind": "vae", "clustering": {"num_clusters": 4}}
    assert parse_variants([variant]) == ({"model.kind": "vae", "clustering.num_clusters": 4},)
    assert parse_variants([]) == ()
    with pytest.raises(UserError, match=r"search\.variants has unknown key"):
        parse_variants([{"model.kinds": "vae"}])


def test_lists_of_variants_are_crossed_and_the_first_list_counts() -> None:
    kinds = [{"model.kind": "regressor", "data.unlabeled_utterances": 0}, {"model.kind": "vae"}]
    pools = [{"data": {"labeled_utterances": 50, "unlabeled_utterances": pool}} for pool in (0, None)]
    assert parse_variants([kinds, pools]) == (
        {"model.kind": "regressor", "data.unlabeled_utterances": 0, "data.labeled_utterances": 50},
        {"model.kind": "vae", "data.labeled_utterances": 50, "data.unlabeled_utterances": 0},
        {"model.kind": "vae", "data.labeled_utterances": 50, "data.unlabeled_utterances": None},
    )
    with pytest.raises(UserError, match=r"search\.variants has an empty list"):
        parse_variants([kinds, []])
    with pytest.raises(UserError, match=r"search\.variants has both maps and lists"):
        parse_variants([kinds, {"model.kind": "vae"}])


def test_draws_follow_the_distribution_they_are_named_for() -> None:
    rng = np.random.default_rng(0)
    logs = [math.log(FloatRange(0.01, 100.0, log=True).sample(rng)) for _ in range(2000)]
    uniform = stats.uniform(loc=math.log(0.01), scale=math.log(1e4))
    assert stats.kstest(logs, uniform.cdf).pvalue > 0.01
    counts = Counter(IntRange(3, 7).sample(rng) for _ in range(2000))
    assert sorted(counts) == [3, 4, 5, 6]
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    steps = {FloatRange(0.0, 0.5, step=0.1).sample(rng) for _ in range(300)}
    assert steps == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}


def test_drawn_numbers_are_short_enough_to_print_in_full() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        value = FloatRange(0.05, 5.0, log=True).sample(rng)
        assert value == float(f"{value:.4g}")
        assert 0.05 <= value <= 5.0


def test_corners_are_the_extreme_values() -> None:
    assert IntRange(5, 60).corners() == (5, 59)
    assert IntRange(5, 6).corners() == (5,)
    assert FloatRange(0.0, 1.0, step=0.3).corners() == (0.0, 0.9)
    assert Choice((3, 1, 2)).corners() == (3, 1, 2)


def test_a_perturbed_value_is_brought_back_into_its_domain() -> None:
    assert clip(IntRange(5, 60), 70.4) == 59
    assert clip(IntRange(5, 60), 5.6) == 6
    assert clip(FloatRange(0.1, 2.0), 2.4) == 2.0
    assert clip(FloatRange(0.0, 1.0, step=0.25), 0.6) == 0.5
    assert clip(Choice((1, 2)), 2) == 2
