"""A search that is wanted larger goes on from what it has; one that is wanted otherwise is refused."""

import json
from pathlib import Path

import pytest

from raydec.config import config_yaml, load_config
from raydec.errors import UserError
from raydec.runs.run_folder import SEARCH_FILE, RunFolder
from raydec.search.config import TuneConfig
from raydec.search.ledger import Ledger
from raydec.search.plan import plan_search
from raydec.search.state import Study, all_entries, find_remaining, open_study

SPACE = "search.space={loss.cluster_weight: {uniform: [0.1, 1.0]}}"


def study(folder: Path, *overrides: str) -> Study:
    common = ("name=s", f"output_dir={folder}", "data.store=x", "training.epochs=5", "search.num_samples=3")
    config = load_config(None, [*common, *overrides], TuneConfig)
    assert isinstance(config, TuneConfig)
    return open_study(plan_search(config))


def finish(of: Study) -> list[tuple[int, str]]:
    """Stands in for training all that is left; returns what there then is."""
    folder = RunFolder(of.location)
    folder.create()
    folder.write(SEARCH_FILE, config_yaml(of.stored_config()))
    ledger = Ledger(folder)
    for entry in find_remaining(of).entries:
        ledger.begin(entry)
        ledger.end(entry.key, "finished")
        for name in entry.run_names:
            run = RunFolder(f"{of.trials}/{name}")
            run.create()
            run.write_json("summary.json", {"ccc": {}, "splits": {"test": []}})
    return settings(of)


def settings(of: Study) -> list[tuple[int, str]]:
    return [(entry.number, json.dumps(entry.setting)) for entry in all_entries(of)]


def test_more_samples_are_drawn_after_the_first_ones(tmp_path: Path) -> None:
    first = finish(study(tmp_path, SPACE))
    larger = study(tmp_path, SPACE, "search.num_samples=5")
    assert [entry.number for entry in find_remaining(larger).entries] == [3, 4]
    both = finish(larger)
    assert both[:3] == first and len(both) == 5
    undisturbed = settings(study(tmp_path / "other", SPACE, "search.num_samples=5"))
    assert both == undisturbed


def test_a_wider_space_keeps_what_was_found(tmp_path: Path) -> None:
    first = finish(study(tmp_path, SPACE))
    wider = "search.space={loss.cluster_weight: {uniform: [0.05, 4.0]}}"
    larger = study(tmp_path, wider, "search.num_samples=6")
    assert [entry.number for entry in find_remaining(larger).entries] == [3, 4, 5]
    assert finish(larger)[:3] == first
    # As many as were asked for are there already.
    assert not find_remaining(study(tmp_path, wider, "search.num_samples=6")).entries


def test_a_longer_grid_trains_only_the_new_cells(tmp_path: Path) -> None:
    def grid(*values: int) -> Study:
        return study(
            tmp_path, "search.searcher=grid", f"search.space={{clustering.num_clusters: {list(values)}}}"
        )

    finish(grid(5, 10))
    longer = grid(5, 7, 10, 20)
    left = [(entry.number, entry.setting) for entry in find_remaining(longer).entries]
    assert left == [(2, {"clustering.num_clusters": 7}), (3, {"clustering.num_clusters": 20})]


def test_more_seeds_train_every_setting_with_them(tmp_path: Path) -> None:
    finish(study(tmp_path, SPACE))
    more = study(tmp_path, SPACE, "search.seeds=[31,32]")
    assert [entry.key for entry in find_remaining(more).entries] == ["0000-s32", "0001-s32", "0002-s32"]


def test_optuna_asks_for_as_many_as_are_missing(tmp_path: Path) -> None:
    optuna = ("search.searcher=optuna", SPACE)
    empty = study(tmp_path, *optuna)
    folder = RunFolder(empty.location)
    folder.create()
    folder.write(SEARCH_FILE, config_yaml(empty.stored_config()))
    assert find_remaining(study(tmp_path, *optuna, "search.num_samples=8")).num_new == 8


@pytest.mark.parametrize(
    "overrides, key",
    [
        (["search.num_samples=2", SPACE], "search.num_samples"),
        (["search.space={loss.cluster_weight: {uniform: [0.9, 1.0]}}"], "search.space"),
        (["search.space={loss.emotion_weight: {uniform: [0.1, 1.0]}}"], "search.space"),
        ([SPACE, "training.epochs=9"], "training.epochs"),
        ([SPACE, "search.seeds=[32,31]"], "search.seeds"),
        ([SPACE, "search.metric=valid/ccc_arousal"], "search.metric"),
    ],
)
def test_what_would_leave_trials_behind_is_refused(tmp_path: Path, overrides: list[str], key: str) -> None:
    finish(study(tmp_path, SPACE))
    with pytest.raises(UserError, match=rf"search s exists in .* but differs in {key}.* extend it"):
        study(tmp_path, *overrides)
