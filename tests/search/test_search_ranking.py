"""Ranking settings over seeds, and writing the ranking."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from raydec.files.markdown import markdown_table
from raydec.pages.search_report import write_hparams, write_search_report
from raydec.search.ranking import (
    RunOutcome,
    best_run,
    describe_setting,
    from_json,
    interval,
    rank_settings,
    short_names,
    table,
    to_csv,
    to_json,
)

KEYS = ("clustering.num_clusters",)


def run(number: int, seed: int, score: float | None, state: Any = "finished") -> RunOutcome:
    return RunOutcome(
        run=f"{number:04d}-s{seed}",
        number=number,
        setting={KEYS[0]: 5 * (number + 1)},
        seed=seed,
        state=state,
        score=score,
        epochs=3,
        best_epoch=2,
        train_s=1.5,
        ccc={"test": {"arousal": 0.25, "valence": 0.75}} if state == "finished" else None,
        test_splits=("test",) if state == "finished" else (),
        problem="it broke | badly" if state == "failed" else None,
    )


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_is_students(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    ours = interval([float(value) for value in values])
    assert (ours.mean, ours.low, ours.high) == pytest.approx((values.mean(), low, high), rel=1e-12)


def test_a_single_seed_has_no_interval() -> None:
    assert (interval([0.5]).low, str(interval([0.5]))) == (None, "0.5000")


def test_settings_are_ranked_by_their_mean() -> None:
    outcomes = [
        run(0, 1, 0.9),
        run(0, 2, 0.1),
        run(1, 1, 0.6),
        run(1, 2, 0.6),
        run(2, 1, 0.2),
        run(2, 2, 0.2),
    ]
    assert [entry.number for entry in rank_settings(outcomes, "max")] == [1, 0, 2]
    assert [entry.number for entry in rank_settings(outcomes, "min")] == [2, 0, 1]
    assert [entry.rank for entry in rank_settings(outcomes, "max")] == [1, 2, 3]
    assert best_run(rank_settings(outcomes, "max"), "max") == run(1, 1, 0.6)


def test_what_did_not_finish_comes_last_and_is_never_missing() -> None:
    outcomes = [
        run(0, 1, None, "failed"),
        run(1, 1, 0.9, "stopped"),
        run(2, 1, 0.5),
        run(3, 1, 0.8),
        run(3, 2, None, "failed"),
    ]
    ranking = rank_settings(outcomes, "max")
    assert [(entry.number, entry.state) for entry in ranking] == [
        (2, "finished"),
        (1, "stopped"),
        (3, "failed"),
        (0, "failed"),
    ]
    _, rows = table(ranking, KEYS, "valid/ccc")
    assert [row[-1] for row in rows] == ["finished", "stopped", "1 of 2 failed", "failed"]
    assert rows[-1][2] == "-"


def test_nothing_that_has_a_score_leaves_no_best_run() -> None:
    assert best_run(rank_settings([run(0, 1, None, "failed")], "max"), "max") is None
    assert best_run([], "max") is None


def test_test_scores_are_means_over_attributes() -> None:
    (entry,) = rank_settings([run(0, 1, 0.5), run(0, 2, 0.6)], "max")
    assert entry.test["test"].mean == 0.5
    assert (entry.epochs, entry.train_s) == (6, 3.0)


def test_files_say_the_same_as_the_ranking() -> None:
    ranking = rank_settings([run(0, 1, 0.5), run(0, 2, 0.6), run(1, 1, None, "failed")], "max")
    document = json.loads(to_json(ranking, name="x"))
    assert document["name"] == "x"
    assert from_json(document) == ranking
    rows = list(csv.DictReader(io.StringIO(to_csv(ranking, KEYS))))
    assert [row[KEYS[0]] for row in rows] == ["5", "10"]
    assert float(rows[0]["score"]) == ranking[0].score.mean  # type: ignore[union-attr]
    assert rows[1]["score"] == ""
    markdown = markdown_table(*table(ranking, KEYS, "valid/ccc"))
    assert markdown.count("\n") == 3
    assert {line.count("|") for line in markdown.splitlines()} == {9}


def test_names_are_short_where_that_is_clear() -> None:
    assert short_names(["loss.cluster_weight", "model.kind"]) == {
        "loss.cluster_weight": "cluster_weight",
        "model.kind": "kind",
    }
    assert short_names(["training.seed", "data.seed"])["data.seed"] == "data.seed"
    setting = {"data.attributes": ["arousal", "valence"], "loss.kl_weight": 0.00123456, "model.kind": None}
    assert describe_setting(setting) == "attributes=arousal+valence kl_weight=0.001235 kind=unset"


def test_the_report_needs_no_other_file(tmp_path: Path) -> None:
    outcomes = [run(0, 1, 0.5), run(0, 2, 0.6), run(1, 1, 0.7), run(2, 1, None, "failed")]
    ranking = rank_settings(outcomes, "max")
    write_search_report(tmp_path / "report.html", "a <b>", "valid/ccc", KEYS, ranking)
    text = (tmp_path / "report.html").read_text()
    assert "a &lt;b&gt;" in text and "<b>" not in text.split("plotly", 1)[0]
    assert "parcoords" in text and "against clustering.num_clusters" in text
    assert 'src="http' not in text and "src='http" not in text
    assert text.count("plotly.js v") <= 2  # the library once


def test_hyperparameters_are_written_for_every_run_with_a_score(tmp_path: Path) -> None:
    ranking = rank_settings([run(0, 1, 0.5), run(1, 1, None, "failed")], "max")
    write_hparams(tmp_path / "hparams", "valid/ccc", ranking)
    write_hparams(tmp_path / "hparams", "valid/ccc", ranking)
    assert [folder.name for folder in (tmp_path / "hparams").iterdir()] == ["0000-s1"]
    assert len(list((tmp_path / "hparams" / "0000-s1").iterdir())) == 1
