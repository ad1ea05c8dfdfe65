"""Proposals of Optuna's estimator over the search space, and its use of scores."""

from __future__ import annotations

import itertools

from raydec.search.space import Choice, FloatRange, IntRange, Setting
from raydec.search.tpe import Tpe

SPACE = {
    "clustering.num_clusters": IntRange(5, 60),
    "loss.cluster_weight": FloatRange(0.05, 5.0, log=True),
    "data.attributes": Choice((["arousal"], ["arousal", "valence"])),
}


def quality(setting: Setting) -> float:
    """Best at 20 clusters with both attributes."""
    return -abs(setting["clustering.num_clusters"] - 20) - 10.0 * (len(setting["data.attributes"]) == 1)


def test_it_finds_a_simple_optimum_with_fewer_trials_than_chance_needs() -> None:
    tpe = Tpe(SPACE, [{}], "max", seed=3)
    found: list[float] = []
    for number in range(40):
        setting = tpe.ask(number)
        assert setting is not None
        tpe.tell(number, quality(setting))
        found.append(quality(setting))
    # Chance: half of the attributes, and one cluster count in 55.
    assert max(found) >= -2
    assert sum(found[20:]) > sum(found[:20])


def test_what_was_learned_before_an_interruption_is_used_after_it() -> None:
    finished = Tpe(SPACE, [{}], "max", seed=3)
    known = []
    for number in range(25):
        setting = finished.ask(number)
        assert setting is not None
        finished.tell(number, quality(setting))
        known.append(setting)
    taken_up, fresh = Tpe(SPACE, [{}], "max", seed=4), Tpe(SPACE, [{}], "max", seed=4)
    for setting in known:
        taken_up.learn(setting, quality(setting))

    def mean_of_next(tpe: Tpe) -> float:
        proposals = [tpe.ask(100 + index) for index in range(8)]
        return sum(quality(setting) for setting in proposals if setting is not None) / 8

    assert mean_of_next(taken_up) > mean_of_next(fresh) + 5


def test_no_setting_is_proposed_twice_and_a_finite_space_ends() -> None:
    space = {"clustering.num_clusters": Choice((5, 10)), "loss.cluster_weight": Choice((0.5, 1.0))}
    tpe = Tpe(space, [{}], "max", seed=0)
    tpe.learn({"clustering.num_clusters": 5, "loss.cluster_weight": 0.5}, 0.1)
    tpe.resume(0, {"clustering.num_clusters": 5, "loss.cluster_weight": 1.0})
    proposals = list(itertools.takewhile(lambda setting: setting is not None, map(tpe.ask, range(1, 9))))
    assert sorted(setting["loss.cluster_weight"] for setting in proposals if setting) == [0.5, 1.0]
    assert all(setting["clustering.num_clusters"] == 10 for setting in proposals if setting)


def test_variants_are_proposed_whole() -> None:
    variants = [{"model.kind": "regressor"}, {"model.kind": "vae", "loss.cluster_weight": 0.0}]
    tpe = Tpe({"loss.cluster_weight": FloatRange(0.5, 1.0)}, variants, "min", seed=0)
    for number in range(20):
        setting = tpe.ask(number)
        if setting is None:
            break
        assert setting["model.kind"] in ("regressor", "vae")
        assert (setting["loss.cluster_weight"] == 0.0) == (setting["model.kind"] == "vae")
        tpe.tell(number, None if number == 3 else 1.0)
    tpe.learn({"model.kind": "vae", "loss.cluster_weight": 0.0}, 0.5)


def test_steps_are_kept() -> None:
    tpe = Tpe({"loss.cluster_weight": FloatRange(0.0, 1.0, step=0.25)}, [{}], "max", seed=0)
    proposals = [tpe.ask(number) for number in range(6)]
    values = {setting["loss.cluster_weight"] for setting in proposals if setting}
    assert values == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert proposals[-1] is None
