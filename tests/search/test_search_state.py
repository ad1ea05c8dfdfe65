"""Resuming a killed search from its ledger and run directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raydec.config import config_from_dict, config_yaml
from raydec.errors import UserError
from raydec.pages.search_report import write_search_pages
from raydec.runs.run_folder import RunFolder
from raydec.search.config import TuneConfig
from raydec.search.ledger import LEDGER_FILE, Entry, Ledger, run_name
from raydec.search.plan import plan_search
from raydec.search.results import conclude
from raydec.search.score import RunScore, mean_score, score_run, trial_curve
from raydec.search.state import SEARCH_FILE, Study, collect, find_remaining, open_study

GRID = {"searcher": "grid", "space": {"clustering.num_clusters": [5, 10]}, "seeds": [1, 2]}


def study_of(tmp_path: Path, search: dict[str, Any], **other: Any) -> Study:
    sections = {"name": "s", "output_dir": str(tmp_path), **other, "search": search}
    config = config_from_dict(sections, TuneConfig)
    assert isinstance(config, TuneConfig)
    return open_study(plan_search(config))


def write_run(study: Study, run: str, scores: list[float], *, finished: bool = False) -> None:
    folder = study.run_folder(run)
    folder.create()
    lines = [
        {"epoch": epoch, "valid/ccc": score, "time/epoch_s": 2.0} for epoch, score in enumerate(scores, 1)
    ]
    folder.write_json_lines("metrics.jsonl", lines)
    if finished:
        folder.write_json("summary.json", {"finished": True, "ccc": {"test": {"arousal": 0.5}}})


def test_the_ledger_survives_its_writer(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "s"))
    folder.create()
    ledger = Ledger(folder)
    first = Entry(0, {"data.attributes": ["arousal"], "loss.cluster_weight": 0.1}, (1,))
    ledger.begin(first)
    ledger.begin(Entry(1, {"loss.cluster_weight": 0.2}, (1, 2)))
    ledger.end("0000-s1", "failed", wall_s=2.0, problem="memory")
    ledger.begin(first)
    ledger.end("0000-s1", "finished", wall_s=3.0)
    entries = Ledger(RunFolder(str(tmp_path / "s"))).entries()
    assert entries == ledger.entries()
    assert [entry.key for entry in entries] == ["0000-s1", "0001"]
    assert (entries[0].state, entries[0].attempts, entries[0].wall_s) == ("finished", 1, 5.0)
    assert entries[1].run_names == ("0001-s1", "0001-s2")
    assert not list((tmp_path / "s").glob(".partial-*"))


def test_a_new_search_has_everything_left(tmp_path: Path) -> None:
    remaining = find_remaining(study_of(tmp_path, GRID))
    assert [entry.key for entry in remaining.entries] == ["0000-s1", "0000-s2", "0001-s1", "0001-s2"]
    assert (remaining.num_new, remaining.past) == (0, ())
    assert not (tmp_path / "s").exists()


def test_finished_stays_stopped_stays_and_begun_goes_first(tmp_path: Path) -> None:
    study = study_of(tmp_path, GRID)
    (tmp_path / "s").mkdir()
    ledger = Ledger(RunFolder(study.location))
    for entry in find_remaining(study).entries:
        ledger.begin(entry)
    ledger.end("0000-s2", "stopped")
    ledger.end("0001-s1", "failed", problem="memory")
    # Killed after the run ended but before this was recorded in the ledger.
    write_run(study, "0000-s1", [0.1, 0.3, 0.2], finished=True)
    write_run(study, "0000-s2", [0.05])
    write_run(study, "0001-s2", [0.2])
    remaining = find_remaining(study)
    assert [entry.key for entry in remaining.entries] == ["0001-s1", "0001-s2"]
    assert dict((entry.key, curve) for entry, curve in remaining.past) == {
        "0000-s1": [(1, 0.1), (2, 0.3), (3, 0.3)],
        "0000-s2": [(1, 0.05)],
    }
    states = {run.run: (run.state, run.score, run.epochs, run.problem) for run in collect(study)}
    assert states == {
        "0000-s1": ("finished", 0.3, 3, None),
        "0000-s2": ("stopped", 0.05, 1, None),
        "0001-s1": ("failed", None, 0, "memory"),
        "0001-s2": ("unfinished", 0.2, 1, None),
    }


def test_a_deleted_run_is_trained_again(tmp_path: Path) -> None:
    study = study_of(tmp_path, GRID)
    (tmp_path / "s").mkdir()
    ledger = Ledger(RunFolder(study.location))
    for key in find_remaining(study).entries:
        ledger.begin(key)
    ledger.end("0000-s1", "finished")
    ledger.end("0000-s2", "stopped")
    assert len(find_remaining(study).entries) == 4


def test_optuna_goes_on_with_what_it_had_drawn(tmp_path: Path) -> None:
    study = study_of(tmp_path, {"searcher": "optuna", "num_samples": 5, "seeds": [1, 2]})
    (tmp_path / "s").mkdir()
    ledger = Ledger(RunFolder(study.location))
    setting = {"clustering.num_clusters": 7, "loss.cluster_weight": 0.5}
    ledger.begin(Entry(0, setting, (1, 2)))
    ledger.begin(Entry(1, {**setting, "clustering.num_clusters": 9}, (1, 2)))
    write_run(study, "0000-s1", [0.1, 0.2], finished=True)
    write_run(study, "0000-s2", [0.4], finished=True)
    write_run(study, "0001-s1", [0.3], finished=True)
    remaining = find_remaining(study)
    assert [entry.key for entry in remaining.entries] == ["0001"]
    assert remaining.num_new == 3
    ((_, curve),) = remaining.past
    assert curve == [(1, 0.1), (2, 0.2), (3, pytest.approx(0.3))]


def test_population_based_training_goes_on_from_the_newest_setting(tmp_path: Path) -> None:
    space = {"loss.cluster_weight": {"uniform": [0.1, 2.0]}}
    study = study_of(tmp_path, {"scheduler": "pbt", "num_samples": 2, "space": space})
    changed = config_from_dict({"loss": {"cluster_weight": 1.25}})
    folder = study.run_folder("0001-s31")
    folder.create()
    folder.write("config.yaml", config_yaml(changed))
    settings = [entry.setting for entry in find_remaining(study).entries]
    assert settings[1] == {"loss.cluster_weight": 1.25}
    assert settings[0] != settings[1]


def test_other_settings_under_the_same_name_are_refused_by_name(tmp_path: Path) -> None:
    study = study_of(tmp_path, GRID)
    folder = RunFolder(study.location)
    folder.create()
    folder.write(SEARCH_FILE, config_yaml(study.stored_config()))
    assert study_of(tmp_path, GRID).name == "s"
    assert study_of(tmp_path, {**GRID, "max_concurrent": 2, "max_retries": 5}).name == "s"
    assert study_of(tmp_path, GRID, ray={"num_workers": 2}).name == "s"
    with pytest.raises(UserError, match=r"but differs in search\.seeds"):
        study_of(tmp_path, {**GRID, "seeds": [1, 3]})
    with pytest.raises(UserError, match=r"but differs in training\.epochs; choose another name"):
        study_of(tmp_path, GRID, training={"epochs": 3})


def test_results_of_a_search_on_a_shared_folder_go_there(tmp_path: Path) -> None:
    """As for a Ray job, whose own folder is temporary; nothing is written there."""
    output_dir, shared = tmp_path / "job", tmp_path / "shared"
    study = study_of(output_dir, GRID, storage_path=str(shared))
    assert study.local == shared / "s"
    for entry in find_remaining(study).entries:
        for seed in entry.seeds:
            write_run(study, run_name(entry.number, seed), [0.1 * entry.number], finished=True)
    write_search_pages(conclude(study))
    assert (study.local / "best").resolve() == shared / "s" / "trials" / "0001-s1" / "model"
    assert {"results.json", "results.md", "report.html"} <= {path.name for path in study.local.iterdir()}
    assert not output_dir.exists()


def test_a_search_without_a_name_is_found_again(tmp_path: Path) -> None:
    assert study_of(tmp_path, GRID, name=None).name == "demo-search"
    assert study_of(tmp_path, GRID, name=None, data={"store": "corpora/podcast"}).name == "podcast-search"


def test_a_score_belongs_to_the_epoch_whose_model_is_kept() -> None:
    history = [
        {"valid/ccc": 0.1, "cluster/nmi_previous": None, "time/epoch_s": 1.0},
        {"valid/ccc": 0.5, "cluster/nmi_previous": 0.3, "time/epoch_s": 2.0},
        {"valid/ccc": 0.5, "cluster/nmi_previous": 0.9, "time/epoch_s": 3.0},
        {"valid/ccc": 0.4, "cluster/nmi_previous": 1.0, "time/epoch_s": None},
    ]
    assert score_run(history, "cluster/nmi_previous") == RunScore(4, 2, 0.3, 6.0)
    assert score_run(history[:1], "cluster/nmi_previous") == RunScore(1, 1, None, 1.0)
    assert score_run(history, "valid/ccc") == RunScore(4, 2, 0.5, 6.0)
    assert score_run([], "valid/ccc") is None
    assert score_run([{"valid/ccc": float("nan")}], "valid/ccc") == RunScore(1, 1, None, 0.0)


@pytest.mark.parametrize("kept", ["selection/kept_epoch", "selection/epoch"])
def test_the_score_of_a_run_that_keeps_its_last_epoch_is_the_last_also_under_the_earlier_name(
    kept: str,
) -> None:
    history = [{"valid/ccc": 0.5, kept: 1}, {"valid/ccc": 0.3, kept: 2}]
    assert score_run(history, "valid/ccc") == RunScore(2, 2, 0.3, 0.0)


def test_a_trials_curve_averages_its_seeds_as_they_come() -> None:
    first = [{"valid/ccc": 0.2}, {"valid/ccc": 0.4}]
    second = [{"valid/ccc": 0.0}, {"valid/ccc": 0.6}]
    expected = [(1, 0.2), (2, 0.4), (3, 0.2), (4, 0.5)]
    assert trial_curve([first, second], "valid/ccc") == [(e, pytest.approx(s)) for e, s in expected]
    assert (mean_score([]), mean_score([0.5, None]), mean_score([0.5, 1.0])) == (None, None, 0.75)


def test_a_torn_ledger_cannot_come_about(tmp_path: Path) -> None:
    """The file is replaced as a whole, so every line of it is complete."""
    folder = RunFolder(str(tmp_path))
    for number in range(20):
        Ledger(folder).begin(Entry(number, {}, (1,)))
        lines = (tmp_path / LEDGER_FILE).read_text().splitlines()
        assert [json.loads(line)["number"] for line in lines] == list(range(number + 1))
