"""A run's TensorBoard events: scalars, histograms of cluster sizes, maps of embeddings, hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tensorboardX import SummaryWriter

from raydec.config import Config
from raydec.features.chunk_set import ChunkSet
from raydec.learning.checkpoint import RunState
from raydec.learning.data import TrainingData
from raydec.learning.inference import embed_share
from raydec.learning.worker import LocalWorker
from raydec.model.assembly import build_network
from raydec.runs.tracking import flat_settings

# Enough for a map; one core embeds them in seconds.
_MAPPED_UTTERANCES = 32
# Settings shown in TensorBoard's table of hyperparameters; all others are in config.yaml.
_HYPERPARAMETERS = ("seed", "data.", "features.scale", "model.", "training.", "clustering.", "loss.")


class RunEvents:
    """Writes the TensorBoard events of one run.

    Args:
        folder: folder of the event files.
        config: the run's settings.
        data: its chunk sets.
    """

    def __init__(self, folder: Path, config: Config, data: TrainingData) -> None:
        self._folder = folder
        self._config = config
        self._data = data
        self._writer = SummaryWriter(str(folder))

    def step(self, record: Mapping[str, float | int | str | None]) -> None:
        """Record an optimiser step."""
        for name, value in record.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"step/{record['stage']}/{name}", value, record["global_step"])

    def epoch(self, state: RunState, sizes: Mapping[str, np.ndarray], drift: float | None) -> None:
        """Record an epoch's metrics, its cluster sizes, and every few epochs a map of embeddings."""
        for name, value in state.history[-1].items():
            if value is not None:
                self._writer.add_scalar(name, value, state.epoch)
        if drift is not None:
            self._writer.add_scalar("cluster/drift", drift, state.epoch)
        for stage, counts in sizes.items():
            self._writer.add_histogram(f"cluster/sizes_{stage}", counts, state.epoch)
        every = self._config.tracking.embedding_epochs
        if every and (state.epoch % every == 0 or state.epoch == self._config.training.epochs):
            self._map(state)
        self._writer.flush()

    def finish(self, scores: Mapping[str, float]) -> None:
        """Record the run's hyperparameters and scores, and close the writer."""
        settings = flat_settings(self._config).items()
        shown = {
            key: value for key, value in settings if key.startswith(_HYPERPARAMETERS) and key != "data.store"
        }
        plain = {key: value if isinstance(value, int | float) else str(value) for key, value in shown.items()}
        self._writer.add_hparams(plain, dict(scores), name=".")
        self._writer.close()

    def _map(self, state: RunState) -> None:
        """Record embeddings of some chunks of the validation split, for TensorBoard's projector."""
        tag = "validation"
        if (self._folder / f"{state.epoch:05d}" / tag).exists():
            return  # written by an interrupted attempt
        config, whole = self._config, self._data.validation
        network = build_network(
            config.model,
            whole.store.front_end,
            self._data.form,
            len(self._data.targets.outputs),
            config.clustering.num_clusters,
        )
        network.load_state_dict(state.network)
        rows = whole.rows[:: max(1, len(whole.rows) // _MAPPED_UTTERANCES)][:_MAPPED_UTTERANCES]
        chunk_set = ChunkSet(whole.store, rows, self._data.normalizer, self._data.form)
        embeddings = embed_share(network, chunk_set, LocalWorker())
        header = ["utterance", "speaker", *config.data.attributes]
        self._writer.add_embedding(
            embeddings, _about_chunks(chunk_set, config.data.attributes), None, state.epoch, tag, header
        )


def _about_chunks(chunk_set: ChunkSet, attributes: Sequence[str]) -> list[list[str]]:
    """A row of metadata per chunk."""
    table, labels = chunk_set.table, chunk_set.labels(attributes)
    about = []
    for name, speaker, values in zip(
        table["utterance_id"].to_pylist(), table["speaker"].to_pylist(), labels, strict=True
    ):
        row = [_in_one_cell(name), _in_one_cell(speaker), *(f"{value:.2f}" for value in values)]
        about += [row] * chunk_set.num_chunks
    return about


def _in_one_cell(text: str | None) -> str:
    return " ".join((text or "unknown").split())


def centroid_drift(before: Float[np.ndarray, "cluster d"], after: Float[np.ndarray, "cluster d"]) -> float:
    """Distance that centroids moved, relative to their spread.

    Cluster ids are not stable, so centroids are matched such that the sum of distances is smallest.

    Returns:
        Root mean square distance of matched centroids, divided by the root mean square distance of the new
        centroids from their mean; 0 if nothing moved.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    distances = cdist(before.astype(np.float64), after.astype(np.float64))
    moved = np.sqrt(np.mean(distances[linear_sum_assignment(distances)] ** 2))
    spread = np.sqrt(np.mean(np.sum((after - after.mean(axis=0, dtype=np.float64)) ** 2, axis=1)))
    return float(moved / spread) if spread > 0 else 0.0
