"""Full, read-only and damaged storage: a one-line error with a remedy, and the last checkpoint is intact."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from stores import make_store

from raydec.config import Config, config_from_dict
from raydec.errors import UserError
from raydec.experiment import train_run
from raydec.files.storage import storage_problem
from raydec.learning.checkpoint import load_state
from raydec.learning.worker import LocalWorker


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("storage"), num_train=6, num_unlabeled=3)


def config(store: Path, runs: Path) -> Config:
    tree = {
        "name": "run",
        "output_dir": str(runs),
        "data": {"store": str(store), "attributes": ["arousal"]},
        "model": {"channels": [4, 4, 4, 4, 8, 8, 8], "embedding_dim": 8},
        "training": {"epochs": 3, "batch_utterances": 3},
        "clustering": {"num_clusters": 3},
        "features": {"scale": "log"},
        "ray": {"num_workers": 0},
    }
    return config_from_dict(tree, Config)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_state(run / "checkpoints" / "epoch-00003").network


def test_a_disk_that_fills_up_costs_no_finished_epoch(
    store: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_run(config(store, tmp_path / "ample"))
    report, filler = LocalWorker.report, disk / "filler"

    def fill_then_report(worker: LocalWorker, metrics: object, checkpoint: Path, name: str) -> None:
        if name == "epoch-00002":
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(bytes(16 << 20))
        report(worker, metrics, checkpoint, name)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalWorker, "report", fill_then_report)
    with pytest.raises(UserError) as caught:
        train_run(config(store, disk))
    message = str(caught.value)
    assert "No space left on device; the last checkpoint is kept: free some space and run" in message
    assert str(disk) in message and "\n" not in message
    assert load_state(disk / "run" / "checkpoints" / "epoch-00001").epoch == 1

    monkeypatch.undo()
    filler.unlink()
    train_run(config(store, disk))
    expected, found = weights(tmp_path / "ample" / "run"), weights(disk / "run")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_storage_that_is_read_only_is_said_at_once(store: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(UserError, match=r"Read-only file system") as caught:
        train_run(config(store, disk))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space"), "No space left"),
        (shutil.Error([("a", "b", "[Errno 122] Disk quota exceeded")]), "quota"),
        (OSError(116, "Stale file handle", "/mnt/x"), "/mnt/x, for /runs/a: Stale file handle"),
        (RuntimeError("no space left"), None),
        (FileNotFoundError(2, "No such file or directory", "/x"), None),
    ],
)
def test_storage_errors_of_every_library_are_recognised(error: Exception, words: str | None) -> None:
    problem = storage_problem(error, "/runs/a")
    assert (problem is None) == (words is None)
    assert words is None or words in str(problem)
