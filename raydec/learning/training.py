"""A run: epochs with validation and a checkpoint after each, the choice of an epoch, and the final test."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from raydec.config import Config
from raydec.features.chunk_set import ChunkSet
from raydec.learning.calibration import calibrate
from raydec.learning.checkpoint import RunState, load_state, save_labels, save_state
from raydec.learning.clusterer import Clusterer, ClusteringTask
from raydec.learning.clustering import nearest_centroid
from raydec.learning.data import TrainingData
from raydec.learning.dependency import (
    Dependency,
    EmotionInformation,
    cluster_dependency,
    emotion_information,
    most_frequent_clusters,
)
from raydec.learning.divergence import diverged
from raydec.learning.epoch import EpochRunner
from raydec.learning.host import import_ahead
from raydec.learning.inference import embed_share, predict_utterances
from raydec.learning.label_aware import assign_with_labels, label_columns
from raydec.learning.optimizers import Optimizers
from raydec.learning.randomness import generator_for, integer_seed_for, torch_generator_for
from raydec.learning.recipes import KEPT_EPOCH, fill_recipe
from raydec.learning.residency import hold_where_they_fit
from raydec.learning.sampled_clustering import past_one_process
from raydec.learning.stages import Stage, count_steps, plan_stages
from raydec.learning.standardization import standardize
from raydec.learning.starting_model import start_from
from raydec.learning.worker import Worker, share_of
from raydec.model.assembly import build_network
from raydec.model.batch_norm import share_batch_statistics
from raydec.model.network import Network
from raydec.model.tuned_trunk import TunedTrunk

Metrics = Mapping[str, float | int | None]

# Permutations of the per-epoch test of dependence between clusters and attributes.
NUM_PERMUTATIONS = 500


@runtime_checkable
class Recorder(Protocol):
    """Writes the results of a run. Rank 0 has a real one, the others :class:`NullRecorder`."""

    def step(self, record: Mapping[str, float | int | str | None]) -> None:
        """An optimiser step was taken."""
        ...

    def resumed(self, state: RunState) -> None:
        """Training is resumed after ``state.epoch``: records of later epochs are void."""
        ...

    def epoch(self, state: RunState) -> None:
        """An epoch ended; its metrics are the last of ``state.history``."""
        ...

    def best(self, network: Network, state: RunState) -> None:
        """The network of this epoch is the best so far."""
        ...

    def finished(
        self,
        network: Network,
        state: RunState,
        centroids: np.ndarray,
        scores: Mapping[str, SplitScores],
    ) -> None:
        """The run is over; ``network`` holds the best epoch's weights, ``centroids`` belong to them."""
        ...


class NullRecorder:
    """Writes nothing."""

    def step(self, record: Mapping[str, float | int | str | None]) -> None:
        """See :class:`Recorder`."""

    def resumed(self, state: RunState) -> None:
        """See :class:`Recorder`."""

    def epoch(self, state: RunState) -> None:
        """See :class:`Recorder`."""

    def best(self, network: Network, state: RunState) -> None:
        """See :class:`Recorder`."""

    def finished(
        self,
        network: Network,
        state: RunState,
        centroids: np.ndarray,
        scores: Mapping[str, SplitScores],
    ) -> None:
        """See :class:`Recorder`."""


@dataclass(frozen=True)
class SplitScores:
    """Predictions and scores of the best network on one split.

    Attributes:
        rows: int64 ``[utterance]``, rows of the feature store.
        predictions: float64 ``[utterance, output]``: attributes in the scale of the labels, then
            probabilities of classes.
        metrics: every metric of the targets over the labeled utterances, such as ``ccc_arousal``.
        dependency: attribute to its dependency on the utterances' clusters; empty without clusters.
        emotion: mutual information of clusters and emotion class; None without clusters or classes.
    """

    rows: np.ndarray
    predictions: np.ndarray
    metrics: dict[str, float]
    dependency: dict[str, Dependency]
    emotion: EmotionInformation | None


class Training:
    """Trains one network on one worker of a group; every worker runs the same calls.

    Args:
        config: the run's settings.
        data: the chunk sets.
        worker: this process's place in the group.
        clusterer: K-means over the gathered embeddings.
        recorder: where rank 0 writes.
    """

    def __init__(
        self, config: Config, data: TrainingData, worker: Worker, clusterer: Clusterer, recorder: Recorder
    ) -> None:
        config = fill_recipe(config, data.labeled.num_utterances, data.labeled.store.front_end.scales)
        self._config = config
        self._data = data
        self._worker = worker
        self._clusterer = past_one_process(clusterer, worker, config.clustering)
        self._recorder = recorder
        self._stages: tuple[Stage, ...] = plan_stages(config, data)
        self.network = build_network(
            config.model,
            data.labeled.store.front_end,
            data.form,
            len(data.targets.outputs),
            config.clustering.num_clusters,
        )
        self.network.initialize(
            torch_generator_for(config.seed, "initialization"), config.model.initialization or "published"
        )
        self.network.encoder.read_pretrained()
        if config.training.gradient_checkpointing:
            self.network.encoder.recompute_layers()
        if data.start is not None:
            start_from(data.start, self.network, data.targets.outputs, str(config.model.init))
        # Convolution kernels are fastest with channels last, on CPUs and GPUs.
        self.network.to(worker.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The sets that training reads most often come first; validation is read once per epoch.
        hold_where_they_fit([*(stage.chunk_set for stage in self._stages), data.validation], worker.device)
        if worker.world_size > 1:
            share_batch_statistics(self.network, worker.all_sum)
        total_steps = config.training.epochs * count_steps(config, self._stages)
        self._optimizers = Optimizers(config.training, self.network, total_steps)
        self._epochs = EpochRunner(
            config, data, self.network, self._optimizers, worker, self._clusterer, recorder.step
        )

    def run(self) -> tuple[RunState, dict[str, SplitScores]]:
        """Train to the last epoch, resuming from the newest checkpoint if any, then score the splits."""
        # The first optimiser needs this module, whose import takes a second. It is imported in the background
        # while the corpus is embedded, because that hardly uses the interpreter.
        import_ahead("torch._dynamo")
        state = self._restore()
        if not state.epoch:
            self._standardize()
        while not self._is_over(state):
            self._run_epoch(state)
        self.network.load_state_dict(state.best_network)
        if self._config.training.calibration == "spread":
            unseen = self._data.unlabeled or self._data.validation
            calibrate(self.network, unseen, self._worker, self._data.targets.outputs)
        centroids = self._final_centroids(state)
        splits = {self._config.data.validation_name: self._data.validation, **self._data.tests}
        scores = {name: self._score(chunk_set, centroids) for name, chunk_set in splits.items()}
        self._recorder.finished(self.network, state, centroids, scores)
        return state, scores

    def _standardize(self) -> None:
        """Fit the standardisation in a trunk that encodes audio, unless the starting model's is kept."""
        keeps = self._data.start is not None and self._config.model.init_normalization == "keep"
        if isinstance(self.network.encoder, TunedTrunk) and not keeps:
            standardize(self.network.encoder, self._data.labeled, self._worker)

    def _is_over(self, state: RunState) -> bool:
        """Whether the last epoch is done or patience has run out, according to the (resumed) state."""
        training = self._config.training
        if state.epoch >= training.epochs:
            return True
        return training.patience is not None and state.epoch - state.best_epoch >= training.patience

    def _final_centroids(self, state: RunState) -> np.ndarray:
        """Centroids of the labeled training chunks under the best weights.

        An epoch's own centroids are older than its weights: K-means comes first, training second. Baselines
        get centroids too, so that their embeddings can be analysed in the same way.
        """
        clustering = self._config.clustering
        task = ClusteringTask(
            state.epoch,
            "final",
            clustering.num_clusters,
            seed=integer_seed_for(self._config.seed, "kmeans", "final"),
            init=state.best_centroids,
        )
        embeddings = embed_share(self.network, self._data.labeled, self._worker)
        if not (self.network.has_cluster_head and clustering.label_weight):
            return self._clusterer.assign(task, embeddings).centroids
        assert state.best_centroids is not None
        nearest, _ = nearest_centroid(embeddings, state.best_centroids)
        return assign_with_labels(
            self._clusterer,
            self._worker,
            task,
            embeddings,
            label_columns(self._data.labeled, self._data.targets.outputs, self._worker),
            weight=clustering.label_weight,
            previous=nearest,
        ).centroids

    def _run_epoch(self, state: RunState) -> None:
        begun = time.perf_counter()
        metrics: dict[str, float | int | None] = {"epoch": state.epoch + 1}
        metrics |= self._epochs.run(state.epoch, self._stages, state)
        validation_begun = time.perf_counter()
        metrics |= self._validate(state)
        metrics["time/validate_s"] = time.perf_counter() - validation_begun
        metrics["time/epoch_s"] = time.perf_counter() - begun
        state.epoch += 1
        state.history.append(metrics)
        state.network = _copy_of(self.network)
        state.optimizers = self._optimizers.state_dict()
        score = float(metrics[f"valid/{self._data.targets.selection}"])  # type: ignore[arg-type]
        keeps_last = self._config.training.selection == "last"
        if keeps_last:
            metrics[KEPT_EPOCH] = state.epoch
        if not math.isfinite(score):
            problem = f"valid/{self._data.targets.selection} is {score}"
            place = f"the validation after epoch {state.epoch}"
            raise diverged(self._config, problem, place, state.epoch - 1)
        if keeps_last or state.best_score is None or score > state.best_score:
            state.best_score, state.best_epoch = score, state.epoch
            state.best_network, state.best_centroids = state.network, state.centroids
            self._recorder.best(self.network, state)
        self._recorder.epoch(state)
        self._checkpoint(state, metrics)

    def _validate(self, state: RunState) -> dict[str, float | None]:
        scores = self._score(self._data.validation, None)
        metrics: dict[str, float | None] = {f"valid/{key}": value for key, value in scores.metrics.items()}
        for name, dependency in scores.dependency.items():
            metrics[f"cluster/eta2_{name}"] = dependency.eta_squared
            metrics[f"cluster/epsilon2_{name}"] = dependency.epsilon_squared
            metrics[f"cluster/eta2_p_{name}"] = dependency.p_value
        if scores.emotion is not None:
            metrics["cluster/emotion_mi"] = scores.emotion.mutual_information_nats
            metrics["cluster/emotion_nmi"] = scores.emotion.normalized
        return metrics

    def _score(self, chunk_set: ChunkSet, centroids: np.ndarray | None) -> SplitScores:
        """Score every target over a whole split (SPEC "Test"), and its dependency on the clusters.

        Clusters are the nearest centroids where there are centroids of these weights, else the cluster
        head's choices.
        """
        targets, config = self._data.targets, self._config
        predictions = predict_utterances(self.network, chunk_set, self._worker, targets.outputs)
        rng = generator_for(config.seed, "bootstrap")
        metrics = targets.score(predictions.values, chunk_set.table, rng)
        chunk_clusters = predictions.clusters
        if centroids is not None:
            chunk_clusters, _ = nearest_centroid(predictions.embeddings, centroids)
        if chunk_clusters is None:
            return SplitScores(chunk_set.rows, predictions.values, metrics, {}, None)
        clusters = most_frequent_clusters(chunk_clusters, chunk_set.num_chunks)
        dependency = {
            attribute: cluster_dependency(
                chunk_set.labels([attribute])[:, 0],
                clusters,
                generator_for(config.seed, "permutation", attribute),
                speakers=chunk_set.speakers(),
                num_permutations=NUM_PERMUTATIONS,
            )
            for attribute in targets.outputs.attributes
        }
        emotion = emotion_information(chunk_set.emotions(), clusters)
        return SplitScores(
            chunk_set.rows,
            predictions.values,
            metrics,
            dependency,
            emotion if emotion.num_utterances else None,
        )

    def _checkpoint(self, state: RunState, metrics: Metrics) -> None:
        folder: Path | None = None
        if self._worker.rank == 0 or state.labels:
            # Not a TemporaryDirectory, because the receiver of the report moves or uploads the folder.
            folder = Path(tempfile.mkdtemp(prefix="raydec-checkpoint-"))
            try:
                first_rows = {stage: rows.start for stage, rows in self._own_chunks().items()}
                save_labels(state.labels, first_rows, folder)
                if self._worker.rank == 0:
                    save_state(state, folder)
            except Exception:  # The disk may be full: do not leave an incomplete checkpoint on it.
                shutil.rmtree(folder, ignore_errors=True)
                raise
        numbers = {name: float(value) for name, value in metrics.items() if value is not None}
        self._worker.report(numbers, folder, f"epoch-{state.epoch:05d}")

    def _own_chunks(self) -> dict[str, slice]:
        """This worker's share of the chunks of every stage."""
        shares = {}
        for stage in self._stages:
            chunk_set = stage.chunk_set
            own = share_of(chunk_set.num_utterances, self._worker.rank, self._worker.world_size)
            shares[stage.name] = slice(own.start * chunk_set.num_chunks, own.stop * chunk_set.num_chunks)
        return shares

    def _restore(self) -> RunState:
        with self._worker.latest_checkpoint() as folder:
            state = RunState() if folder is None else load_state(folder, self._own_chunks())
        # Also without a checkpoint, because an attempt may have ended before its first checkpoint.
        self._recorder.resumed(state)
        if not state.epoch:
            return state
        self.network.load_state_dict(state.network)
        self.network.to(self._worker.device)
        self._optimizers.load_state_dict(state.optimizers)
        return state


def _copy_of(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
