"""Losses that are read from the device a few steps at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stores import make_store

from raydec.config import config_from_dict
from raydec.learning import epoch
from raydec.learning.clusterer import LocalClusterer
from raydec.learning.step import read_losses
from raydec.learning.training import NullRecorder, Training
from raydec.learning.worker import LocalWorker
from raydec.runs.training_loop import open_data


class StepLog(NullRecorder):
    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def step(self, record: Any) -> None:
        self.steps.append(dict(record))


def steps_of(store: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    config = config_from_dict(
        {
            "data": {"store": str(store), "attributes": ["arousal"]},
            "model": {"channels": [2, 2, 4, 4, 4, 4, 4], "embedding_dim": 8},
            "training": {"epochs": 2, "batch_utterances": 2, "recipe": "modern", "schedule": "two_stage"},
            "clustering": {"num_clusters": 2},
        }
    )
    _, data = open_data(config)
    log, worker = StepLog(), LocalWorker()
    state, _ = Training(config, data, worker, LocalClusterer(worker, config.clustering), log).run()
    losses = [{k: v for k, v in line.items() if k.startswith("train/")} for line in state.history]
    return log.steps, losses


def test_how_often_losses_are_read_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    at_once = steps_of(store)
    # 2 and 4 steps a stage: one stage ends before it is time to read, one in the middle.
    monkeypatch.setitem(epoch.STEPS_PER_READ, "cpu", 3)
    assert steps_of(store) == at_once
    assert [record["global_step"] for record in at_once[0]] == list(range(1, 13))


def test_read_losses_keeps_steps_and_names_apart() -> None:
    records = [
        {"cluster": torch.tensor(1.5)},
        {},
        {"cluster": torch.tensor(2.5), "emotion": torch.tensor(0.1, dtype=torch.float64)},
    ]
    assert read_losses(records) == [{"cluster": 1.5}, {}, {"cluster": 2.5, "emotion": 0.1}]
    assert read_losses([]) == []
