"""Writes the results of a run: metrics, TensorBoard events, the best model, the summary."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydec.config import Config
from raydec.features.store import FeatureStore
from raydec.learning.checkpoint import RunState
from raydec.learning.data import TrainingData
from raydec.learning.member import Member
from raydec.learning.training import SplitScores
from raydec.model.directory import NetworkSpec, TrainedModel, save_model
from raydec.model.network import Network
from raydec.model.outputs import Outputs
from raydec.runs.run_events import RunEvents, centroid_drift
from raydec.runs.run_folder import (
    CLUSTERS_FILE,
    MEMBERS_FILE,
    METRICS_FILE,
    MODEL_FOLDER,
    PREDICTIONS_FILE,
    STEPS_FILE,
    SUMMARY_FILE,
    RunFolder,
    json_line,
)
from raydec.runs.tracking import Trackers
from raydec.version import __version__


class RunRecorder:
    """Writes the run directory; used by rank 0.

    Args:
        folder: the run directory.
        config: the run's settings.
        store: the feature store trained on.
        data: the utterances selected from it.
        members: the processes of this attempt, whose locations become a line of ``workers.jsonl``.

    Every method that writes to the run directory first checks whether another process has taken over the run,
    and if so raises :class:`raydec.errors.UserError`.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        store: FeatureStore,
        data: TrainingData,
        members: Sequence[Member] = (),
    ) -> None:
        self._folder = folder
        self._config = config
        self._store = store
        self._data = data
        self._members = members
        folder.create()
        self._events = RunEvents(folder.local, config, data)
        self._trackers = Trackers(config, str(folder.local))
        self._centroids: np.ndarray | None = None
        self._steps: list[str] = []

    def step(self, record: Mapping[str, float | int | str | None]) -> None:
        """See :class:`raydec.learning.training.Recorder`."""
        self._steps.append(json_line(dict(record)))
        self._events.step(record)

    def resumed(self, state: RunState) -> None:
        """Drop what an interrupted attempt wrote after the checkpoint; record this attempt's processes."""
        self._folder.check_claim()
        self._centroids = state.centroids
        self._folder.write_json_lines(METRICS_FILE, state.history)
        self._keep_lines(STEPS_FILE, state.epoch)
        self._keep_lines(CLUSTERS_FILE, state.epoch)
        group = {"epoch": state.epoch, "members": [dataclasses.asdict(member) for member in self._members]}
        self._folder.write(MEMBERS_FILE, (self._folder.read(MEMBERS_FILE) or "") + json.dumps(group) + "\n")

    def epoch(self, state: RunState) -> None:
        """See :class:`raydec.learning.training.Recorder`."""
        self._folder.check_claim()
        with (self._folder.local / STEPS_FILE).open("a", encoding="utf-8") as file:
            file.writelines(self._steps)
        self._steps.clear()
        self._folder.write_json_lines(METRICS_FILE, state.history)
        sizes = state.sizes
        drift = self._drift(state)
        if sizes:
            line = {
                "epoch": state.epoch,
                "sizes": {stage: counts.tolist() for stage, counts in sizes.items()},
                "drift": drift,
            }
            with (self._folder.local / CLUSTERS_FILE).open("a", encoding="utf-8") as file:
                file.write(json_line(line))
        self._events.epoch(state, sizes, drift)
        self._trackers.log(state.history[-1], state.epoch)
        self._folder.sync()

    def best(self, network: Network, state: RunState) -> None:
        """See :class:`raydec.learning.training.Recorder`."""
        self._folder.check_claim()
        metrics = {name: state.history[-1][f"valid/{name}"] for name in self._data.targets.metrics}
        model = self._model(network, state, None, {self._config.data.validation_name: metrics})
        save_model(model, self._folder.local / MODEL_FOLDER)

    def finished(
        self,
        network: Network,
        state: RunState,
        centroids: np.ndarray,
        scores: Mapping[str, SplitScores],
    ) -> None:
        """See :class:`raydec.learning.training.Recorder`."""
        self._folder.check_claim()
        by_split = {
            split: {name: result.metrics[name] for name in self._data.targets.metrics}
            for split, result in scores.items()
        }
        save_model(self._model(network, state, centroids, by_split), self._folder.local / MODEL_FOLDER)
        named = {f"{split}/{name}": metrics[name] for split, metrics in by_split.items() for name in metrics}
        self._events.finish(named)
        self._trackers.finish(named)
        classes = {split: _of_classes(metrics) for split, metrics in by_split.items()}
        summary = {
            "finished": True,
            "epochs": state.epoch,
            "stopped_early": state.epoch < self._config.training.epochs,
            "best_epoch": state.best_epoch,
            "synthetic": self._store.synthetic,
            "splits": self._splits(),
            "ccc": {split: _ccc(metrics) for split, metrics in by_split.items()},
            **({"classes": classes} if any(classes.values()) else {}),
            "dependency": {
                split: {name: dataclasses.asdict(found) for name, found in result.dependency.items()}
                for split, result in scores.items()
            },
            "emotion": {
                split: dataclasses.asdict(result.emotion)
                for split, result in scores.items()
                if result.emotion is not None
            },
            "num_utterances": {split: len(result.rows) for split, result in scores.items()},
        }
        pq.write_table(self._predictions(scores), self._folder.local / PREDICTIONS_FILE)
        self._folder.sync()
        self._folder.write_json(SUMMARY_FILE, summary)
        self._folder.sync()

    def _keep_lines(self, name: str, last_epoch: int) -> None:
        """Drop lines of later epochs, and a truncated one."""
        written = (self._folder.read(name) or "").splitlines(keepends=True)
        kept = [line for line in written if line.endswith("\n") and json.loads(line)["epoch"] <= last_epoch]
        self._folder.write(name, "".join(kept))

    def _drift(self, state: RunState) -> float | None:
        """Movement of the centroids since the previous epoch; None without centroids of both epochs."""
        before, self._centroids = self._centroids, state.centroids
        if before is None or state.centroids is None:
            return None
        return centroid_drift(before, state.centroids)

    def _splits(self) -> dict[str, list[str]]:
        """The splits of the store by their use in the run."""
        data = self._config.data
        return {
            "train": list(data.train_split),
            "validation": list(data.validation_split),
            "test": list(self._data.tests),
        }

    def _predictions(self, scores: Mapping[str, SplitScores]) -> pa.Table:
        """A table of all scored utterances: identity, labels and predictions."""
        parts = []
        for result in scores.values():
            rows = self._store.utterances.take(result.rows)
            part = rows.select(["utterance_id", "speaker", "split"])
            for name, values in _prediction_columns(self._data.targets.outputs, rows, result.predictions):
                part = part.append_column(name, values)
            parts.append(part)
        return pa.concat_tables(parts)

    def _model(
        self,
        network: Network,
        state: RunState,
        centroids: np.ndarray | None,
        metrics: Mapping[str, Mapping[str, float | None]],
    ) -> TrainedModel:
        outputs = self._data.targets.outputs
        spec = NetworkSpec(
            attributes=outputs.attributes,
            num_clusters=self._config.clustering.num_clusters,
            model=self._config.model.model_dump(mode="json", exclude={"init", "init_normalization"}),
            label_mean=outputs.label_mean,
            label_std=outputs.label_std,
            classes=outputs.classes,
        )
        return TrainedModel(
            networks=[(spec, network)],
            front_end=self._store.front_end,
            chunks=self._data.form,
            feature_mean=self._data.normalizer.mean,
            feature_std=self._data.normalizer.std,
            centroids=centroids,
            extra={
                "run": self._config.name,
                "corpus": self._store.corpus_name,
                "synthetic": self._store.synthetic,
                "label_range": self._store.label_range,
                "best_epoch": state.best_epoch,
                "splits": self._splits(),
                "scores": {split: _ccc(found) | _of_classes(found) for split, found in metrics.items()},
                "raydec_version": __version__,
            },
        )


def _ccc(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """CCC by attribute, from a split's metrics."""
    return {name.removeprefix("ccc_"): value for name, value in metrics.items() if name.startswith("ccc_")}


def _of_classes(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """The metrics of classes, from a split's metrics."""
    return {name: value for name, value in metrics.items() if not name.startswith("ccc_")}


def _prediction_columns(
    outputs: Outputs, rows: pa.Table, predictions: np.ndarray
) -> Iterator[tuple[str, pa.Array | pa.ChunkedArray]]:
    """Labels and predictions of each attribute; of each group of classes also the probabilities."""
    for column, name in enumerate(outputs.attributes):
        yield name, pa.array(rows[name].to_numpy())
        yield f"{name}_predicted", pa.array(predictions[:, column])
    for group, columns in outputs.groups.items():
        classes = pa.array(outputs.classes[group], pa.string())
        yield group, rows[group]
        yield f"{group}_predicted", classes.take(pa.array(predictions[:, columns].argmax(axis=1)))
        for name, column in zip(outputs.classes[group], range(columns.start, columns.stop), strict=True):
            yield f"{group}_{name}", pa.array(predictions[:, column])
