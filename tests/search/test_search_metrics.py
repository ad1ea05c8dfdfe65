"""The metrics that a search accepts are those that a run writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stores import make_store

from raydec.config import config_from_dict
from raydec.experiment import begin
from raydec.runs.training_loop import train_here
from raydec.search.metrics import known_metrics


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("metrics"), num_train=4, num_other=4, num_unlabeled=2)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"training": {"schedule": "pooled"}},
        {"model": {"kind": "regressor"}},
        {"model": {"kind": "autoencoder"}},
        {"model": {"kind": "vae"}},
        {"model": {"temporal": "triplet"}},
        {"data": {"unlabeled_utterances": 0, "attributes": ["valence"]}},
    ],
    ids=json.dumps,
)
def test_known_metrics_are_those_of_a_run(store: Path, tmp_path: Path, sections: dict[str, Any]) -> None:
    small = {
        "name": "r",
        "output_dir": str(tmp_path),
        "training": {"epochs": 1, "batch_utterances": 4},
        "clustering": {"num_clusters": 2},
        "model": {"channels": [2, 2, 2, 2, 2, 2, 2], "embedding_dim": 4, "latent_dim": 4},
        "ray": {"num_workers": 0, "use_gpu": False},
        "data": {"store": str(store)},
    }
    merged = {key: {**value, **sections.get(key, {})} if isinstance(value, dict) else value
              for key, value in small.items()}  # fmt: skip
    config = config_from_dict(merged)
    folder = begin(config)
    train_here(config, folder.location)
    (written,) = (json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines())
    assert set(written) - {"epoch"} == known_metrics(config)
