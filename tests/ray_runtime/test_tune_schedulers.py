"""State of Tune's schedulers and the searcher after an interruption, without starting Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from raydec.config import config_from_dict
from raydec.ray_runtime.search import _Clip, _scheduler, _searcher
from raydec.runs.run_folder import RunFolder
from raydec.search.config import TuneConfig
from raydec.search.ledger import Entry, Ledger
from raydec.search.plan import SearchPlan, plan_search
from raydec.search.trial_job import Remaining

pytestmark = pytest.mark.ray


def plan_of(epochs: int, **search: Any) -> SearchPlan:
    config = config_from_dict({"training": {"epochs": epochs}, "search": search}, TuneConfig)
    assert isinstance(config, TuneConfig)
    return plan_search(config)


def past(*curves: list[tuple[int, float]]) -> tuple[tuple[Entry, list[tuple[int, float]]], ...]:
    return tuple((Entry(number, {}, (1,), state="finished"), curve) for number, curve in enumerate(curves))


def decide(scheduler: Any, trial: str, epoch: int, score: float) -> str:
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), {"epoch": epoch, "score": score})


def test_asha_judges_new_trials_by_those_from_before_the_interruption() -> None:
    good, bad = [(1, 0.4), (2, 0.6), (3, 0.7), (4, 0.8)], [(1, 0.1)]
    plan = plan_of(4, scheduler="asha", grace_epochs=1, reduction_factor=2)
    told = _scheduler(plan, Remaining((), 0, past(good, bad)))
    fresh = _scheduler(plan, Remaining((), 0, ()))
    for scheduler in (told, fresh):
        scheduler.on_trial_add(None, SimpleNamespace(trial_id="new"))  # type: ignore[arg-type]
    assert decide(fresh, "new", 1, 0.2) == TrialScheduler.CONTINUE
    assert decide(told, "new", 1, 0.2) == TrialScheduler.STOP
    told.on_trial_add(None, SimpleNamespace(trial_id="better"))  # type: ignore[arg-type]
    assert decide(told, "better", 1, 0.5) == TrialScheduler.CONTINUE


def test_asha_never_stops_a_trial_at_its_last_epoch() -> None:
    """It would lose its test scores."""
    for epochs in (4, 8, 9, 27):
        plan = plan_of(epochs, scheduler="asha", grace_epochs=1, reduction_factor=2)
        best = [(epoch, 0.9) for epoch in range(1, epochs + 1)]
        scheduler = _scheduler(plan, Remaining((), 0, past(best)))
        scheduler.on_trial_add(None, SimpleNamespace(trial_id="new"))  # type: ignore[arg-type]
        for epoch in range(1, epochs):
            decide(scheduler, "new", epoch, 0.95)
        assert decide(scheduler, "new", epochs, 0.1) == TrialScheduler.CONTINUE


def test_pbt_perturbs_within_the_space() -> None:
    space = {"loss.cluster_weight": {"loguniform": [0.1, 2.0]}, "loss.emotion_weight": [0.5, 1.0]}
    plan = plan_of(4, scheduler="pbt", num_samples=4, space=space)
    assert isinstance(_scheduler(plan, Remaining((), 0, ())), PopulationBasedTraining)
    config = {"trial": {"setting": {"loss.cluster_weight": 2.4, "loss.emotion_weight": 0.5}}}
    changed = _Clip(plan.domains)(config)
    assert changed["trial"]["setting"] == {"loss.cluster_weight": 2.0, "loss.emotion_weight": 0.5}


def test_the_searcher_hands_out_what_was_begun_and_then_new_numbers(tmp_path: Path) -> None:
    space = {"clustering.num_clusters": [5, 10, 20]}
    plan = plan_of(4, searcher="optuna", num_samples=3, seeds=[1, 2], space=space)
    ledger = Ledger(RunFolder(str(tmp_path)))
    done = Entry(0, {"clustering.num_clusters": 5}, (1, 2))
    begun = Entry(1, {"clustering.num_clusters": 20}, (1, 2))
    for entry in (done, begun):
        ledger.begin(entry)
    remaining = Remaining((begun,), 1, ((done, [(1, 0.5)]),))
    searcher = _searcher(plan, remaining, ledger)
    assert searcher.suggest("a")["trial"] == {
        "number": 1,
        "setting": {"clustering.num_clusters": 20},
        "seeds": [1, 2],
        "folds": [],
    }
    assert searcher.suggest("b")["trial"]["setting"] == {"clustering.num_clusters": 10}
    assert searcher.suggest("c") == Searcher.FINISHED
    searcher.on_trial_complete("a", {"score": 0.4})
    searcher.on_trial_complete("b", error=True)
