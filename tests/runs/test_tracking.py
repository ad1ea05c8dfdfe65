"""What runs leave in TensorBoard, Weights & Biases and MLflow; the two services are kept offline."""

from __future__ import annotations

import json
import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_support import make_tiny_run, make_tiny_store

from raydec.config import load_config
from raydec.errors import UserError
from raydec.experiment import resolve
from raydec.runs import tracking
from raydec.runs.run_events import centroid_drift


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_store(tmp_path_factory.mktemp("store"))


class Service:
    """A fake client of a service that records its calls."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.epochs: list[tuple[int, dict[str, float]]] = []
        self.scores: dict[str, float] = {}
        self.finished = False
        self.fails_in_epoch: int | None = None

    def module(self) -> types.ModuleType:
        """What ``import wandb`` finds."""
        found = types.ModuleType("wandb")
        found.Settings = lambda **settings: settings  # type: ignore[attr-defined]
        found.init = self.init  # type: ignore[attr-defined]
        found.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
        return found

    def init(self, *, config: dict[str, Any], **options: Any) -> Service:
        self.settings, self.options = config, options
        self.summary = self
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        if step == self.fails_in_epoch:
            raise ConnectionError("the service is gone\nand more")
        self.epochs.append((step, metrics))

    def update(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    found = Service()
    monkeypatch.setitem(sys.modules, "wandb", found.module())
    return found


def test_a_tracker_hears_every_epoch_and_the_scores(tmp_path: Path, store: Path, service: Service) -> None:
    run = make_tiny_run(tmp_path, store, overrides=["tracking.services=[wandb]", "tracking.project=emotions"])
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert service.epochs == [
        (epoch["epoch"], {name: value for name, value in epoch.items() if value is not None})
        for epoch in history
    ]
    ccc = json.loads((run / "summary.json").read_text())["ccc"]
    assert service.scores == {f"{split}/ccc_{name}": ccc[split][name] for split in ccc for name in ccc[split]}
    assert service.settings["clustering.num_clusters"] == 3 and service.settings["name"] == "tiny"
    assert service.options["project"] == "emotions" and service.options["resume"] == "allow"
    assert service.finished


def test_a_tracker_that_fails_costs_its_record_and_not_the_run(
    tmp_path: Path, store: Path, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.fails_in_epoch = 2
    with caplog.at_level(logging.WARNING):
        run = make_tiny_run(tmp_path, store, overrides=["tracking.services=[wandb]"])
    assert (run / "summary.json").exists() and len(service.epochs) == 1
    (message,) = [record.message for record in caplog.records if "wandb" in record.message]
    assert message == "wandb no longer records this run: the service is gone"


def test_a_service_that_is_not_installed_is_refused_before_anything_is_made(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    places = [f"output_dir={tmp_path}/runs", f"data.store={store}"]
    with pytest.raises(UserError, match=r'needs mlflow; install with: pip install "raydec\[mlflow\]"'):
        resolve(load_config(None, [*places, "tracking.services=[mlflow]"]))
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match=r"tracking\.services"):
        load_config(None, ["tracking.services=[comet]"])


def test_mlflow_keeps_a_run_in_files_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is in the mlflow extra")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "kept").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    config = load_config(None, ["name=tracked", f"output_dir={tmp_path}", "tracking.services=[mlflow]"])
    first = tracking.Trackers(config, str(tmp_path))
    first.log({"valid/ccc": 0.25, "empty": None}, 1)
    second = tracking.Trackers(config, str(tmp_path))
    second.log({"valid/ccc": 0.5}, 2)
    second.finish({"test/ccc_arousal": 0.75})
    client = MlflowClient()
    (experiment,) = [found for found in client.search_experiments() if found.name == "raydec"]
    (run,) = client.search_runs([experiment.experiment_id])
    kept = client.get_metric_history(run.info.run_id, "valid/ccc")
    assert [(metric.step, metric.value) for metric in kept] == [(1, 0.25), (2, 0.5)]
    assert run.data.metrics["final/test/ccc_arousal"] == 0.75
    assert run.data.params["training.recipe"] == config.training.recipe
    assert (run.info.run_name, run.info.status) == ("tracked", "FINISHED")


def test_wandb_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is in the wandb extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = load_config(None, ["name=tracked", f"output_dir={tmp_path}", "tracking.services=[wandb]"])
    trackers = tracking.Trackers(config, str(tmp_path))
    trackers.log({"valid/ccc": 0.25, "empty": None}, 1)
    trackers.finish({"test/ccc_arousal": 0.75})
    (kept,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert kept.stat().st_size > 1000


def test_tensorboard_gets_maps_of_embeddings_and_hyperparameters(tmp_path: Path, store: Path) -> None:
    run = make_tiny_run(
        tmp_path, store, overrides=["tracking.embedding_epochs=2", "training.schedule=two_stage"]
    )
    # Epoch 2, and the last one.
    assert sorted(path.parent.name for path in run.glob("*/validation")) == ["00002", "00003"]
    rows = (run / "00003" / "validation" / "tensors.tsv").read_text().splitlines()
    about = (run / "00003" / "validation" / "metadata.tsv").read_text().splitlines()
    assert len(rows) == 12 * 11 and {len(row.split("\t")) for row in rows} == {8}
    assert about[0].split("\t")[:2] == ["utterance", "speaker"] and len(about) == len(rows) + 1
    assert (run / "projector_config.pbtxt").read_text().count("embeddings {") == 2
    events = b"".join(path.read_bytes() for path in run.glob("events.out.*"))
    for name in (b"cluster/drift", b"clustering.num_clusters", b"training.recipe", b"cluster/sizes_labeled"):
        assert name in events, name
    lines = [json.loads(line) for line in (run / "clusters.jsonl").read_text().splitlines()]
    assert lines[0]["drift"] is None and all(line["drift"] >= 0 for line in lines[1:])


def test_drift_follows_centroids_whatever_their_numbers() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(6, 4)).astype(np.float32)
    spread = np.sqrt(np.square(before - before.mean(0)).sum(1).mean())
    assert centroid_drift(before, before[rng.permutation(6)]) == pytest.approx(0, abs=1e-6)
    step = np.array([0.01, 0, 0, 0], np.float32)
    assert centroid_drift(before, (before + step)[::-1]) == pytest.approx(0.01 / spread, rel=1e-3)
    # Scale does not matter.
    assert centroid_drift(before * 9, (before + step) * 9) == pytest.approx(0.01 / spread, rel=1e-3)
    assert centroid_drift(before, np.zeros_like(before)) == 0
