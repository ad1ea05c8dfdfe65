"""Deriving valid settings from a search's config."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from raydec.config import config_from_dict, iterate_keys
from raydec.errors import UserError
from raydec.search.config import TuneConfig
from raydec.search.metrics import known_metrics
from raydec.search.plan import SearchPlan, apply_setting, plan_search


def plan_of(search: dict[str, Any], **other: Any) -> SearchPlan:
    config = config_from_dict({**other, "search": search}, TuneConfig)
    assert isinstance(config, TuneConfig)
    return plan_search(config)


def test_a_grid_is_every_combination_once() -> None:
    space = {"clustering.num_clusters": [5, 10, 20], "loss.cluster_weight": [0.5, 1.0]}
    plan = plan_of({"searcher": "grid", "space": space, "seeds": [1, 2]})
    expected = [
        {"clustering.num_clusters": k, "loss.cluster_weight": w}
        for k, w in itertools.product([5, 10, 20], [0.5, 1.0])
    ]
    assert list(plan.settings) == expected
    assert plan.num_trials == 12
    assert plan.keys == ("clustering.num_clusters", "loss.cluster_weight")


def test_the_papers_experiment_is_variants_crossed_with_a_space() -> None:
    variants = [
        {"model.kind": "regressor", "data.unlabeled_utterances": 0},
        {"model.kind": "vae"},
        {"model.kind": "deepemocluster", "clustering.num_clusters": 4},
        {"model.kind": "deepemocluster", "clustering.num_clusters": 8},
    ]
    space = {"data.attributes": [["arousal"], ["valence"]], "data.unlabeled_utterances": [0, 50]}
    plan = plan_of({"searcher": "grid", "variants": variants, "space": space})
    # The regressor does not use unlabeled speech: its variant overrides the space, without duplicates.
    assert len(plan.settings) == 2 * 1 + 3 * 2 * 2
    regressors = [setting for setting in plan.settings if setting["model.kind"] == "regressor"]
    assert [setting["data.unlabeled_utterances"] for setting in regressors] == [0, 0]
    assert plan.keys == (
        "model.kind",
        "data.unlabeled_utterances",
        "clustering.num_clusters",
        "data.attributes",
    )


def test_random_draws_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    search = {"num_samples": 5, "space": {"loss.cluster_weight": {"loguniform": [0.05, 5]}}}
    first, again, other = plan_of(search, seed=1), plan_of(search, seed=1), plan_of(search, seed=2)
    assert first.settings == again.settings
    assert first.settings != other.settings
    assert len(first.settings) == 5


def test_random_draws_never_repeat_a_setting_and_end_with_the_space() -> None:
    search = {"num_samples": 10, "space": {"clustering.num_clusters": [5, 10, 20]}}
    settings = plan_of(search).settings
    assert sorted(setting["clustering.num_clusters"] for setting in settings) == [5, 10, 20]


def test_a_grid_key_is_crossed_with_random_draws() -> None:
    space = {"clustering.num_clusters": {"grid": [5, 10]}, "loss.cluster_weight": {"uniform": [0, 1]}}
    assert len(plan_of({"num_samples": 3, "space": space}).settings) == 6


def test_optuna_decides_as_it_goes() -> None:
    plan = plan_of({"searcher": "optuna", "num_samples": 7, "seeds": [1, 2]})
    assert plan.settings == ()
    assert plan.num_trials == 7


def test_without_a_space_the_cluster_count_and_its_weight_are_searched() -> None:
    assert plan_of({}).keys == ("clustering.num_clusters", "loss.cluster_weight")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"space": {"clustering.num_clusters": {"randint": [1, 5]}}}, "greater than or equal to 2"),
        ({"space": {"model.kind": ["regresor"]}}, "model.kind"),
        ({"space": {"loss.cluster_weight": {"uniform": [-1, 1]}}}, "loss.cluster_weight"),
        (
            {"space": {"model.kind": ["regressor"], "model.temporal": ["none", "triplet"]}},
            "model.temporal=triplet needs",
        ),
        ({"space": {}}, "search.space is empty"),
        ({"metric": "valid/cc"}, "search.metric=valid/cc is not a key"),
        ({"metric": "cluster/empty", "space": {"model.kind": ["vae"]}}, "of model.kind=vae"),
        ({"searcher": "grid"}, "needs lists"),
        ({"searcher": "optuna", "space": {"loss.cluster_weight": {"grid": [1]}}}, "write choice"),
        ({"scheduler": "asha", "grace_epochs": 9}, "could not stop any trial"),
        ({"seeds": [1, 1]}, "lists a seed twice"),
        ({"scheduler": "pbt", "searcher": "optuna"}, "needs search.searcher=random"),
        ({"scheduler": "pbt", "seeds": [1, 2]}, "needs a single seed"),
        ({"scheduler": "pbt", "num_samples": 1}, "at least 2"),
        ({"scheduler": "pbt"}, "cannot change clustering.num_clusters"),
    ],
)
def test_what_could_not_run_is_refused_before_anything_starts(search: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(search)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pbt_changes_what_the_recipe_reads_at_every_step() -> None:
    space = {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}}
    assert plan_of({"scheduler": "pbt", "space": space, "num_samples": 4}).num_trials == 4
    with pytest.raises(UserError, match=r"cannot change training\.learning_rate"):
        plan_of({"scheduler": "pbt", "space": space}, training={"recipe": "reference"})


def test_a_large_space_is_still_checked_at_every_value() -> None:
    space: dict[str, Any] = {
        f"loss.{name}_weight": {"uniform": [0, 1]} for name in ("cluster", "emotion", "kl", "triplet")
    }
    space |= {"clustering.num_clusters": list(range(2, 42)), "training.epochs": [1, 2, 0]}
    with pytest.raises(UserError, match=r"training\.epochs=0"):
        plan_of({"space": space})


def test_every_searchable_key_can_be_set() -> None:
    config = config_from_dict({}, TuneConfig)
    for key, _, default, _ in iterate_keys():
        if default is not None:
            applied = apply_setting(config, {key: default})
            assert not hasattr(applied, "search")


def test_metrics_depend_on_what_is_trained() -> None:
    def known(**sections: Any) -> set[str]:
        return known_metrics(config_from_dict(sections))

    assert {"valid/ccc_arousal", "cluster/nmi_previous", "train/loss_cluster_unlabeled"} <= known(
        training={"schedule": "two_stage"}
    )
    assert "valid/ccc_arousal" not in known(data={"attributes": ["valence"]})
    assert not any(name.startswith("cluster/") for name in known(model={"kind": "regressor"}))
    assert "train/loss_divergence" in known(model={"kind": "vae"})
    assert "train/loss_triplet" in known(model={"temporal": "triplet"})
    assert "train/loss_cluster_unlabeled" not in known(training={"schedule": "pooled"})
