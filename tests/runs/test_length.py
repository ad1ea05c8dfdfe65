"""How long a run is: patience that runs out, and finished runs that go further."""

import json
import math
from pathlib import Path

import pytest
import torch
from report_support import TINY
from stores import make_store

from raydec.config import Config, load_config
from raydec.errors import UserError
from raydec.experiment import resolve, train_run
from raydec.learning.checkpoint import load_state
from raydec.learning.training import Training


class Killed(BaseException):
    """Stands in for the end of the process."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("length"), num_unlabeled=0)


def settings(store: Path, folder: Path, name: str, *overrides: str) -> Config:
    places = (f"name={name}", f"output_dir={folder}", f"data.store={store}")
    return resolve(load_config(None, [*TINY, "training.recipe=reference", *places, *overrides]))


def numbers(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "throughput/"))} for line in lines]


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Make validation find these scores, epoch by epoch."""
    validate = Training._validate

    def find(self: Training, state: object) -> dict:
        return {**validate(self, state), "valid/ccc": scores[state.epoch]}  # type: ignore[attr-defined]

    monkeypatch.setattr(Training, "_validate", find)


@pytest.mark.parametrize(
    "patience, scores, epochs, best",
    [
        ("1", [0.1, 0.0, 0.9], 2, 1),
        ("2", [0.1, 0.3, 0.2, 0.3, 0.9], 4, 2),  # equal is not better
        ("2", [0.1, 0.0, 0.2, 0.1, 0.3], 5, 5),
        ("null", [0.1, 0.0, 0.0, 0.0, 0.0], 5, 1),
    ],
)
def test_training_stops_when_patience_runs_out(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: str, scores: list[float],
    epochs: int, best: int,
) -> None:  # fmt: skip
    scripted(monkeypatch, scores)
    run = train_run(settings(store, tmp_path, "p", "training.epochs=5", f"training.patience={patience}"))
    assert (run.summary["epochs"], run.summary["best_epoch"]) == (epochs, best)
    assert run.summary["stopped_early"] == (epochs < 5)
    assert train_run(run.config).already_finished


def test_patience_is_the_same_whatever_interrupts_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.2, 0.1, 0.0, 0.9])
    length = ("training.epochs=4", "training.patience=2")
    whole = train_run(settings(store, tmp_path, "whole", *length))
    checkpoint = Training._checkpoint

    def cut_off(self: Training, *arguments: object) -> None:
        checkpoint(self, *arguments)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(Training, "_checkpoint", cut_off)
    for _ in range(3):  # after each epoch
        with pytest.raises(Killed):
            train_run(settings(store, tmp_path, "cut", *length))
    monkeypatch.setattr(Training, "_checkpoint", checkpoint)
    cut = train_run(settings(store, tmp_path, "cut", *length))
    assert cut.summary == whole.summary and cut.summary["epochs"] == 3
    assert numbers(cut.folder) == numbers(whole.folder)


def test_a_finished_run_goes_further_as_if_it_had_not_ended(store: Path, tmp_path: Path) -> None:
    whole = train_run(settings(store, tmp_path, "whole", "training.epochs=3"))
    train_run(settings(store, tmp_path, "part", "training.epochs=1"))
    further = train_run(settings(store, tmp_path, "part", "training.epochs=3"))
    assert not further.already_finished
    assert further.summary == whole.summary
    assert numbers(further.folder) == numbers(whole.folder)
    ours, theirs = (
        load_state(run.folder / "checkpoints" / "epoch-00003").network for run in (further, whole)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert load_config(further.folder / "config.yaml").training.epochs == 3


def test_more_patience_takes_up_a_run_that_stopped_early(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.2, 0.1, 0.3])
    modern = ("training.epochs=3", "training.recipe=modern")
    whole = train_run(settings(store, tmp_path, "whole", *modern))
    first = train_run(settings(store, tmp_path, "part", *modern, "training.patience=1"))
    assert first.summary["epochs"] == 2
    further = train_run(settings(store, tmp_path, "part", *modern))
    assert numbers(further.folder) == numbers(whole.folder)
    assert further.summary == whole.summary


@pytest.mark.parametrize(
    "recipe, epochs, problem",
    [
        ("modern", 3, r"falls along a cosine that ends after 2\. Start another run from its model: "
                      r"model\.init=.*/run/model name=NAME"),
        ("reference", 1, r"exists in .*/run but differs in training\.epochs"),
    ],
)  # fmt: skip
def test_what_cannot_be_extended_honestly_is_refused(
    store: Path, tmp_path: Path, recipe: str, epochs: int, problem: str
) -> None:
    run = train_run(settings(store, tmp_path, "run", "training.epochs=2", f"training.recipe={recipe}"))
    with pytest.raises(UserError, match=problem):
        train_run(settings(store, tmp_path, "run", f"training.epochs={epochs}", f"training.recipe={recipe}"))
    with pytest.raises(UserError, match="but differs in seed"):
        train_run(
            settings(store, tmp_path, "run", "training.epochs=5", "seed=2", f"training.recipe={recipe}")
        )
    assert (run.folder / "summary.json").exists() and math.isfinite(run.summary["best_epoch"])
