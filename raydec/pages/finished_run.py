"""A finished run, read for its report: its files, and its model's predictions for labeled splits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32, Float64, Int64

from raydec.config import Config, load_config
from raydec.errors import UserError
from raydec.features.chunk_set import ChunkSet
from raydec.features.normalization import FrameNormalizer
from raydec.features.store import FeatureStore
from raydec.features.store_cache import local_store
from raydec.features.store_view import view
from raydec.files.storage import is_uri
from raydec.learning.clustering import nearest_centroid
from raydec.learning.dependency import most_frequent_clusters
from raydec.learning.inference import predict_utterances
from raydec.learning.worker import LocalWorker
from raydec.model.directory import load_model
from raydec.model.outputs import Outputs
from raydec.model.trained import TrainedModel
from raydec.runs.run_folder import (
    CLUSTERS_FILE,
    CONFIG_FILE,
    METRICS_FILE,
    MODEL_FOLDER,
    SEARCH_FILE,
    SUMMARY_FILE,
)
from raydec.splits import parts_of

_UTTERANCES_PER_STEP = 64

Progress = Callable[[int], None]
"""Called with the number of further utterances that were predicted."""


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """The directory of a finished run, and the store it was trained on.

    Attributes:
        folder: the run directory.
        config: its resolved settings.
        history: one mapping of metrics per epoch.
        sizes: one mapping per epoch, with chunks per cluster by stage; empty for runs that did not record it.
        summary: best epoch, and CCC by split and attribute.
        trained: the best epoch's model.
        store: the feature store.
    """

    folder: Path
    config: Config
    history: list[dict[str, Any]]
    sizes: list[dict[str, Any]]
    summary: dict[str, Any]
    trained: TrainedModel
    store: FeatureStore

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.config.name or self.folder.name

    @property
    def outputs(self) -> Outputs:
        """What the model predicts."""
        return self.trained.outputs

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that the model predicts."""
        return self.outputs.attributes

    @property
    def trains_clusters(self) -> bool:
        """Whether clusters were used in training; a baseline's are computed only afterwards."""
        return self.trained.networks[0][1].has_cluster_head

    @property
    def validation_split(self) -> str:
        """The split that chose the best epoch."""
        return self.config.data.validation_name

    def rows(self, split: str) -> Int64[np.ndarray, " utterance"]:
        """Labeled rows of the store in a split, or in several by their joint name."""
        return self.outputs.labeled_rows(self.store, parts_of(split))

    @property
    def scored_splits(self) -> tuple[str, ...]:
        """The splits that the run scored, validation first."""
        names = dict.fromkeys((self.validation_split, *self.summary["ccc"]))
        return tuple(names)

    def recorded_scores(self, split: str) -> dict[str, float]:
        """The scores that the run recorded for a split: CCC by attribute, and ``f1_emotion`` and so on."""
        return self.summary["ccc"].get(split, {}) | self.summary.get("classes", {}).get(split, {})


def open_run(folder: Path, store: Path | None = None) -> FinishedRun:
    """Read a run directory and open its feature store.

    Args:
        folder: the run directory.
        store: present location of the store; default: the one in the run's config.

    Raises:
        UserError: not a run directory, not finished, a file is missing or damaged, or the store is missing
            or not the one that the run was trained on.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(_why_no_run(folder))
    config = load_config(folder / CONFIG_FILE)
    history = _read_lines(folder / METRICS_FILE)
    if not (folder / SUMMARY_FILE).is_file():
        raise UserError(
            f"run {folder} is not finished: it has {len(history)} of {config.training.epochs} epochs and no "
            f"{SUMMARY_FILE}; run the training command again to resume it"
        )
    summary = _parse(folder / SUMMARY_FILE, (folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    if not history:
        raise UserError(f"{folder / METRICS_FILE} is missing or empty; the report needs it")
    if not (folder / MODEL_FOLDER).is_dir():
        raise UserError(f"{folder / MODEL_FOLDER} is missing; the report needs the run's model")
    trained = load_model(folder / MODEL_FOLDER)
    opened = view(_open_store(config, trained, store), config.data)
    for _, network in trained.networks:
        network.encoder.located(opened.front_end)
    sizes = _read_lines(folder / CLUSTERS_FILE)
    run = FinishedRun(folder, config, history, sizes, summary, trained, opened)
    _check_same_store(run)
    return run


def _why_no_run(folder: Path) -> str:
    if (folder / SEARCH_FILE).is_file():
        return f"{folder} is a search and has its own report.html; name a run under {folder}/trials"
    if (folder.parent / CONFIG_FILE).is_file():
        return f"{folder} is not a run directory, but part of one; name {folder.parent}"
    return f"{folder} is not a run directory: it has no {CONFIG_FILE}; name the directory of a training run"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [_parse(path, line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} must contain JSON objects, not {type(document).__name__}")
    return document


def _open_store(config: Config, trained: TrainedModel, moved_to: Path | None) -> FeatureStore:
    if moved_to is not None:
        return FeatureStore.open(moved_to, trained.front_end)
    if config.data.store is None:
        raise UserError("the run's config names no feature store (data.store); name it with --store DIR")
    if not is_uri(config.data.store) and not Path(config.data.store).is_dir():
        raise UserError(
            f"the run's feature store {config.data.store} does not exist; "
            "give its new location with --store DIR, or prepare the corpus again"
        )
    return FeatureStore.open(local_store(config.data.store), trained.front_end)


def _check_same_store(run: FinishedRun) -> None:
    counts = run.summary["num_utterances"]
    for split in run.scored_splits:
        found = len(run.rows(split))
        trained = counts.get(split)
        if found != trained:
            raise UserError(
                f"{run.store.path} is not the store that the run was trained on: split {split} has {found} "
                f"labeled utterances, but the run scored {trained}; name the right store with --store DIR"
            )


@dataclass(frozen=True, eq=False)
class SplitView:
    """The labeled utterances of a split and the model's predictions for them.

    Attributes:
        split: its name.
        table: their rows of the store.
        outputs: what is predicted.
        labels: of the attributes, in the corpus's scale, NaN if missing.
        scores: attributes in the same scale, then probabilities of classes.
        num_chunks: per utterance.
        kept: numbers of the chunks whose embeddings were kept, ordered by utterance.
        embeddings: of those chunks.
        chunk_clusters: cluster of each chunk; None for a model without clusters.
        distances: from each chunk to its centroid; None for a model without centroids.
    """

    split: str
    table: pa.Table
    outputs: Outputs
    labels: Float64[np.ndarray, "utterance attribute"]
    scores: Float64[np.ndarray, "utterance output"]
    num_chunks: int
    kept: Int64[np.ndarray, " kept"]
    embeddings: Float32[np.ndarray, "kept dim"]
    chunk_clusters: Int64[np.ndarray, " chunk"] | None
    distances: Float32[np.ndarray, " chunk"] | None

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.labels)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that are predicted."""
        return self.outputs.attributes

    @property
    def clusters(self) -> Int64[np.ndarray, " utterance"] | None:
        """The most frequent cluster of each utterance's chunks, the lowest number on ties."""
        if self.chunk_clusters is None:
            return None
        return most_frequent_clusters(self.chunk_clusters, self.num_chunks)

    def column(self, name: str) -> list[str | None]:
        """A text column of the corpus; None where unknown, and everywhere if the store has no such column."""
        if name not in self.table.column_names:
            return [None] * len(self)
        return self.table[name].to_pylist()


def score_split(
    run: FinishedRun,
    split: str,
    *,
    keep: Int64[np.ndarray, " kept"] | None = None,
    progress: Progress | None = None,
) -> SplitView:
    """Predict all utterances of a split that have a label for something that the run learned.

    Args:
        run: the run.
        split: canonical name, or the joint name of several.
        keep: increasing numbers of the chunks whose embeddings to keep; a million take a gigabyte.
        progress: called after each step.
    """
    rows = run.rows(split)
    num_chunks = run.trained.chunks.num_chunks
    kept = np.empty(0, np.int64) if keep is None else keep
    parts = []
    for start in range(0, len(rows), _UTTERANCES_PER_STEP):
        block = rows[start : start + _UTTERANCES_PER_STEP]
        first, last = np.searchsorted(kept, [start * num_chunks, (start + len(block)) * num_chunks])
        parts.append(_score_rows(run, block, kept[first:last] - start * num_chunks))
        if progress is not None:
            progress(len(block))
    scores, embeddings, clusters, distances = zip(*parts, strict=True)
    return SplitView(
        split=split,
        table=run.store.utterances.take(rows),
        outputs=run.outputs,
        labels=_chunk_set(run, rows).labels(run.attributes),
        scores=np.concatenate(scores),
        num_chunks=num_chunks,
        kept=kept,
        embeddings=np.concatenate(embeddings),
        chunk_clusters=_joined(clusters),
        distances=_joined(distances),
    )


def _score_rows(
    run: FinishedRun, rows: Int64[np.ndarray, " utterance"], keep: Int64[np.ndarray, " kept"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Scores, the embeddings to keep, and the cluster and distance to its centroid of each chunk."""
    spec, network = run.trained.networks[0]
    worker = LocalWorker(device="cuda" if torch.cuda.is_available() else "cpu")
    found = predict_utterances(network.to(worker.device), _chunk_set(run, rows), worker, spec.outputs)
    embeddings = found.embeddings[keep]
    if run.trained.centroids is None:
        return found.values, embeddings, found.clusters, None
    clusters, squared = nearest_centroid(found.embeddings, run.trained.centroids.astype(np.float32))
    return found.values, embeddings, clusters.astype(np.int64), np.sqrt(np.maximum(squared, 0))


def _chunk_set(run: FinishedRun, rows: Int64[np.ndarray, " utterance"]) -> ChunkSet:
    trained, form = run.trained, run.trained.chunks
    normalizer = FrameNormalizer(trained.feature_mean, trained.feature_std, form.scale, form.clip)
    return ChunkSet(run.store, rows, normalizer, form)


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None
