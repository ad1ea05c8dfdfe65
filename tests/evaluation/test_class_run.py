"""A run that learns classes only, from its summary through ``evaluate`` to its report."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from report_support import make_tiny_run, make_tiny_store
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from raydec.evaluate import main
from raydec.evaluation.scoring import evaluate
from raydec.pages.analysis import analyse
from raydec.pages.run_report import report_html
from raydec.search.score import score_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("classes")
    make_tiny_run(folder, make_tiny_store(folder), overrides=("data.attributes=[]", "data.emotions=all"))
    yield folder


def predictions(folder: Path, split: str) -> pd.DataFrame:
    table = pd.read_parquet(folder / "tiny" / "predictions.parquet")
    return table[(table["split"] == split) & table["emotion"].notna()]


def test_the_best_epoch_is_that_of_the_largest_macro_f1(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "tiny" / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "tiny" / "summary.json").read_text())
    scores = [line["valid/f1_emotion"] for line in lines]
    assert summary["best_epoch"] == scores.index(max(scores)) + 1
    for line in lines:
        assert line["valid/f1_emotion_low"] <= line["valid/f1_emotion_high"]
        assert "train/loss_class" in line and "valid/ccc" not in line
    found = score_run(lines, "valid/uar_emotion")
    assert found is not None and found.best_epoch == summary["best_epoch"]


def test_evaluate_gives_scikit_learns_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "evaluation.json"
    assert main([str(folder / "tiny" / "model"), str(folder / "store"), "--out", str(out)]) in (None, 0)
    document = json.loads(out.read_text())["splits"]["test"]["classes"]["emotion"]
    known = predictions(folder, "test")
    known = known[known["emotion"].isin(document["classes"])]
    true, predicted = known["emotion"], known["emotion_predicted"]
    present = sorted(set(true))
    f1 = f1_score(true, predicted, labels=present, average="macro", zero_division=0)
    assert document["f1"]["value"] == pytest.approx(f1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, that a class was predicted that is not there
        assert document["uar"]["value"] == pytest.approx(balanced_accuracy_score(true, predicted))
    wanted = confusion_matrix(true, predicted, labels=document["classes"])
    assert document["confusion"] == wanted.tolist()
    assert document["num_utterances"] == len(known)
    printed = capsys.readouterr().out
    assert "macro-F1" in printed and f"{document['f1']['value']:.4f}" in printed
    assert "### Confusion of emotion" in out.with_suffix(".md").read_text()


def test_the_report_shows_who_is_taken_for_whom(folder: Path) -> None:
    analysis = analyse(folder / "tiny")
    (test,) = [s for s in evaluate(folder / "tiny" / "model", folder / "store").splits if s.split == "test"]
    ours, theirs = analysis.classes["test"]["emotion"].scores, test.classes["emotion"].scores
    assert ours.confusion.tolist() == theirs.confusion.tolist()
    assert (ours.f1, ours.uar) == (theirs.f1, theirs.uar)
    text = report_html(analysis)
    assert "Confusion of emotion, test" in text and "Classes by split" in text
    assert f"{ours.f1.value:.3f}" in text
    assert "does not reproduce" not in text and "CCC by split" not in text
