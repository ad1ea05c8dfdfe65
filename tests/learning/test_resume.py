"""A run in this process that is stopped after any epoch and resumed ends with the same numbers (no Ray)."""

import json
from pathlib import Path

import pytest
import torch
from stores import make_store

from raydec.config import Config, config_from_dict
from raydec.errors import UserError
from raydec.experiment import begin, train_run
from raydec.learning.checkpoint import load_state
from raydec.learning.training import Training


class Killed(BaseException):
    """Simulates the end of the process."""


def config(
    store: Path,
    folder: Path,
    name: str,
    classes: bool = False,
    pooling: str = "mean",
    rater_weight: float = 0,
    speakers: str = "none",
    **training: object,
) -> Config:
    return config_from_dict(
        {
            "name": name,
            "output_dir": str(folder),
            "data": {"store": str(store), **({"attributes": [], "emotions": "all"} if classes else {})},
            "model": {"channels": [2, 2, 4, 4, 4, 4, 4], "embedding_dim": 8, "pooling": pooling},
            "training": {"epochs": 3, "batch_utterances": 4, "recipe": "modern", **training},
            "clustering": {"num_clusters": 3},
            "features": {"scale": "log", "speaker_normalization": speakers},
            "loss": {"rater_weight": rater_weight},
            "ray": {"num_workers": 0},
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("resume"), rated=True)


def numbers(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "throughput/"))} for line in lines]


@pytest.mark.parametrize(
    ("epoch", "options"),
    [
        (1, {"recipe": "modern"}),
        (2, {"recipe": "modern"}),
        (1, {"recipe": "reference"}),
        (2, {"recipe": "reference"}),
        (1, {"recipe": "modern", "classes": True}),
        (1, {"recipe": "modern", "pooling": "attentive"}),
        (2, {"recipe": "modern", "rater_weight": 1.0}),
        (1, {"recipe": "modern", "speakers": "mean"}),
    ],
)
def test_a_run_cut_off_after_any_epoch_ends_the_same(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, options: dict
) -> None:
    whole = train_run(config(store, tmp_path, "whole", **options))
    checkpoint = Training._checkpoint

    def cut_off(self: Training, state: object, metrics: object) -> None:
        checkpoint(self, state, metrics)
        if state.epoch == epoch:
            raise Killed

    monkeypatch.setattr(Training, "_checkpoint", cut_off)
    with pytest.raises(Killed):
        train_run(config(store, tmp_path, "cut", **options))
    monkeypatch.undo()
    resumed = train_run(config(store, tmp_path, "cut", **options))

    assert resumed.summary == whole.summary
    assert numbers(resumed.folder) == numbers(whole.folder)
    steps = [(run.folder / "steps.jsonl").read_text() for run in (resumed, whole)]
    assert steps[0] == steps[1]
    # Counted as metrics.jsonl counts them.
    assert [json.loads(line)["epoch"] for line in steps[0].splitlines()][
        :: len(steps[0].splitlines()) - 1
    ] == [1, 3]
    ours, theirs = (
        load_state(run.folder / "checkpoints" / "epoch-00003").network for run in (resumed, whole)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert train_run(config(store, tmp_path, "cut", **options)).already_finished


def test_a_run_that_was_taken_over_stops_and_leaves_the_other_alone(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_run(config(store, tmp_path, "whole"))
    checkpoint = Training._checkpoint

    def started_again(self: Training, state: object, metrics: object) -> None:
        checkpoint(self, state, metrics)
        if state.epoch == 1:
            monkeypatch.undo()
            train_run(config(store, tmp_path, "twice"))

    monkeypatch.setattr(Training, "_checkpoint", started_again)
    with pytest.raises(UserError, match=r"another raydec process has taken over the run in .*twice"):
        train_run(config(store, tmp_path, "twice"))
    both = train_run(config(store, tmp_path, "twice"))
    assert both.already_finished and both.summary == whole.summary
    assert numbers(both.folder) == numbers(whole.folder)
    for name in ("steps.jsonl", "clusters.jsonl"):
        assert (both.folder / name).read_text() == (whole.folder / name).read_text()
    groups = [json.loads(line) for line in (both.folder / "workers.jsonl").read_text().splitlines()]
    assert [group["epoch"] for group in groups] == [0, 1]


def test_a_name_taken_by_other_settings_is_refused(store: Path, tmp_path: Path) -> None:
    begin(config(store, tmp_path, "taken"))
    with pytest.raises(UserError, match=r"taken exists .* but differs in training.weight_decay"):
        begin(config(store, tmp_path, "taken", weight_decay=0.5))


def test_a_torn_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"schema_version": 1')
    with pytest.raises(UserError, match="no readable checkpoint"):
        load_state(tmp_path)
