"""One epoch: embed, cluster, draw, train, as in the paper's figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from raydec.config import Config
from raydec.errors import DivergedError
from raydec.learning.alignment import (
    cluster_health,
    match_clusters,
    normalized_mutual_information,
    rename_clusters,
    shared_chunks,
)
from raydec.learning.checkpoint import RunState
from raydec.learning.clusterer import ClusterAssignment, Clusterer, ClusteringTask
from raydec.learning.data import TrainingData
from raydec.learning.divergence import check_losses, check_weights, diverged
from raydec.learning.epoch_draw import (
    EpochDraw,
    Lookup,
    lookup_chunks,
    lookup_rows,
    lookup_utterances_of_chunks,
)
from raydec.learning.inference import embed_share
from raydec.learning.label_aware import assign_with_labels, label_columns
from raydec.learning.label_shards import LabelShards
from raydec.learning.optimizers import Optimizers
from raydec.learning.randomness import generator_for, integer_seed_for, torch_generator_for
from raydec.learning.sampling import BalancedDraw, BatchPlan, EvenDraw, PairedShuffle
from raydec.learning.shuffle import WHOLE_SIZE, Shuffle
from raydec.learning.stages import Stage, batch_draws, draws_by_utterance, draws_per_epoch, pairs_batches
from raydec.learning.step import BatchSource, StepLosses, StepRunner, read_losses, uses_bf16
from raydec.learning.worker import Worker, gather_rows
from raydec.model.network import Network

# Losses are read from a GPU this often, because reading them waits for all queued work.
STEPS_PER_READ = {"cpu": 1, "cuda": 32}

StepListener = Callable[[dict[str, float | int | str | None]], None]


class EpochRunner:
    """Runs the stages of an epoch and keeps what the next epoch needs in a :class:`RunState`."""

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        network: Network,
        optimizers: Optimizers,
        worker: Worker,
        clusterer: Clusterer,
        on_step: StepListener,
    ) -> None:
        self._config = config
        self._data = data
        self._network = network
        self._optimizers = optimizers
        self._worker = worker
        self._clusterer = clusterer
        self._on_step = on_step
        self._steps = StepRunner(config, network, optimizers, worker, data.targets)
        self._clock: dict[str, float] = {}
        self._num_trained = 0

    def run(self, epoch: int, stages: tuple[Stage, ...], state: RunState) -> dict[str, float | None]:
        """Run every stage; returns the epoch's training metrics and advances ``state``."""
        metrics: dict[str, float | None] = {}
        self._clock = {}
        self._num_trained = 0
        for stage in stages:
            metrics.update(self._run_stage(epoch, stage, state))
        metrics.update({f"kmeans/{name}": value for name, value in self._clusterer.describe().items()})
        metrics.update({f"time/{name}_s": seconds for name, seconds in self._clock.items()})
        metrics["throughput/chunks_per_s"] = self._num_trained / self._clock["train"]
        return metrics

    def _run_stage(self, epoch: int, stage: Stage, state: RunState) -> dict[str, float | None]:
        labels: np.ndarray | None = None
        metrics: dict[str, float | None] = {}
        if self._network.has_cluster_head:
            try:
                assignment, agreement = self._cluster(epoch, stage, state)
            except DivergedError as error:
                place = f"epoch {epoch + 1}, before the {stage.name} stage"
                raise diverged(self._config, str(error), place, state.epoch) from None
            self._renew_cluster_head(epoch, stage, state)
            metrics = self._cluster_metrics(stage, assignment, agreement)
            labels = assignment.labels
            state.labels[stage.name] = labels
            state.sizes[stage.name] = assignment.sizes
            state.centroids = assignment.centroids
        self._freeze_emotion_head(stage, state)
        with self._timed("train"):
            losses = self._train(epoch, stage, labels, state)
        return metrics | losses

    def _cluster(self, epoch: int, stage: Stage, state: RunState) -> tuple[ClusterAssignment, float | None]:
        """The stage's new assignment, and its agreement with the last one, if there is one."""
        with self._timed("embed"):
            embeddings = embed_share(
                self._network,
                stage.chunk_set,
                self._worker,
                use_bf16=uses_bf16(self._config, self._worker.device),
            )
        aligned = self._config.head_mode == "align"
        previous = state.labels.get(stage.name)
        with self._timed("kmeans"):
            assignment = self._assign(
                epoch, stage, embeddings, state.centroids if aligned else None, previous
            )
        for name, seconds in assignment.timings.items():
            self._clock[f"kmeans_{name.removesuffix('_s')}"] = (
                self._clock.get(f"kmeans_{name.removesuffix('_s')}", 0.0) + seconds
            )
        if previous is None:
            return assignment, None
        own = shared_chunks(assignment.labels, previous, self._config.clustering.num_clusters)
        shared = self._worker.all_sum(torch.from_numpy(own)).numpy()
        if aligned:
            # A cluster head that was trained on the previous ids can then be kept.
            assignment = rename_clusters(assignment, match_clusters(shared))
        return assignment, normalized_mutual_information(shared)

    def _assign(
        self,
        epoch: int,
        stage: Stage,
        embeddings: np.ndarray,
        init: np.ndarray | None,
        previous: np.ndarray | None,
    ) -> ClusterAssignment:
        clustering = self._config.clustering
        seed = integer_seed_for(self._config.seed, "kmeans", epoch, stage.name)
        task = ClusteringTask(epoch, stage.name, clustering.num_clusters, seed=seed, init=init)
        if not (stage.supervised and clustering.label_weight):
            return self._clusterer.assign(task, embeddings)
        return assign_with_labels(
            self._clusterer,
            self._worker,
            task,
            embeddings,
            label_columns(stage.chunk_set, self._data.targets.outputs, self._worker),
            weight=clustering.label_weight,
            previous=previous if self._config.head_mode == "align" else None,
        )

    def _renew_cluster_head(self, epoch: int, stage: Stage, state: RunState) -> None:
        """Replace the top layer if cluster ids are new; keep it if they continue from the last assignment."""
        if self._config.head_mode == "align" and state.centroids is not None:
            return
        generator = torch_generator_for(self._config.seed, "cluster_head", epoch, stage.name)
        self._network.reset_cluster_head(self._config.clustering.num_clusters, generator)
        self._network.to(self._worker.device)
        self._optimizers.renew_top()

    def _freeze_emotion_head(self, stage: Stage, state: RunState) -> None:
        """Freeze the emotion head as configured; the published code never undoes it."""
        mode = self._config.freeze_mode
        if mode == "permanent":
            state.emotion_head_frozen |= not stage.supervised
        else:
            state.emotion_head_frozen = mode == "unlabeled_stage" and not stage.supervised
        for parameter in self._network.emotion_head_parameters():
            parameter.requires_grad_(not state.emotion_head_frozen)

    def _train(
        self, epoch: int, stage: Stage, labels: np.ndarray | None, state: RunState
    ) -> dict[str, float | None]:
        source = BatchSource(
            stage.chunk_set,
            self._worker,
            self._data.targets.encode(stage.chunk_set.table) if stage.supervised else None,
            by_utterance=draws_by_utterance(self._config),
            chunks_per_utterance=self._config.training.chunks_per_utterance,
            random_offsets=bool(self._config.training.random_offsets),
        )
        self._network.train()
        unread: list[StepLosses] = []
        read: list[dict[str, float]] = []
        first_step = state.global_step
        draws = self._draw(epoch, stage, labels)
        for step, draw in enumerate(draws):
            batch = source.batch(draw, generator_for(self._config.seed, "chunks", epoch, stage.name, step))
            losses = self._steps.run(
                batch, epoch=epoch, stage=stage.name, step=step, global_step=state.global_step
            )
            state.global_step += 1
            self._num_trained += batch.num_global_chunks
            unread.append(losses)
            if len(unread) == STEPS_PER_READ[self._worker.device.type] or step + 1 == len(draws):
                for record in read_losses(unread):
                    read.append(record)
                    place = _place(epoch, stage, len(read), len(draws))
                    check_losses(self._config, record, place, state.epoch)
                    self._report_step(epoch, stage, len(read) - 1, first_step + len(read), record)
                unread.clear()
        place = _place(epoch, stage, len(draws), len(draws))
        check_weights(self._config, self._network, place, state.epoch)
        return _mean_losses(read, stage)

    def _report_step(
        self, epoch: int, stage: Stage, step: int, global_step: int, losses: dict[str, float]
    ) -> None:
        place: dict[str, float | int | str | None] = {
            "epoch": epoch + 1,
            "stage": stage.name,
            "step": step,
            "global_step": global_step,
        }
        self._on_step({**place, **losses})

    def _draw(self, epoch: int, stage: Stage, labels: np.ndarray | None) -> EpochDraw:
        """This worker's share of an epoch's draws.

        Either everything is drawn once, or as many draws are made evenly over clusters.

        Args:
            epoch: the number of the draw.
            stage: what is drawn from.
            labels: this worker's share of the assignment.
        """
        config, chunk_set, num_draws = self._config, stage.chunk_set, draws_per_epoch(self._config, stage)
        rng = generator_for(config.seed, "draw", epoch, stage.name)
        num_clusters = config.clustering.num_clusters
        shards = None if labels is None else LabelShards(self._worker, labels, num_clusters)
        by_utterance = draws_by_utterance(config)
        lookup: Lookup
        if shards is None or config.training.draws == "shuffled":
            draw = self._shuffle(epoch, stage, num_draws, rng)
            lookup = lookup_rows(draw, shards, chunk_set.num_chunks if by_utterance else 1)
        elif by_utterance:
            lookup = self._lookup_utterances(stage, num_draws, shards, rng)
        else:
            lookup = lookup_chunks(BalancedDraw(shards.sizes, num_draws, rng), shards)
        plan = BatchPlan(num_draws, batch_draws(config, chunk_set), pairs_batches(config, stage))
        return EpochDraw(plan, self._worker, lookup)

    def _lookup_utterances(
        self, stage: Stage, num_draws: int, shards: LabelShards, rng: np.random.Generator
    ) -> Lookup:
        """Utterances drawn with replacement; those with chunks in small clusters are drawn more often."""
        num_chunks, num_utterances = stage.chunk_set.num_chunks, stage.chunk_set.num_utterances
        if len(stage.chunk_set) > WHOLE_SIZE:
            return lookup_utterances_of_chunks(EvenDraw(shards.sizes, rng), shards, num_chunks)
        # As in EvenDraw, but with numpy's weighted draw, whose numbers fit in the memory of every worker.
        weights = gather_rows(self._worker, shards.weights(num_chunks), num_utterances)
        drawn = rng.choice(num_utterances, num_draws, p=weights / weights.sum())
        return lookup_rows(drawn.__getitem__, shards, num_chunks)

    def _shuffle(
        self, epoch: int, stage: Stage, num_draws: int, rng: np.random.Generator
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Every row once; if batches are paired, followed by the positions of unlabeled utterances."""
        if not pairs_batches(self._config, stage):
            return Shuffle(num_draws, rng)
        assert stage.num_labeled is not None
        pool = generator_for(self._config.seed, "pool", epoch, stage.name)
        num_unlabeled = stage.chunk_set.num_utterances - stage.num_labeled
        return PairedShuffle(num_draws, num_unlabeled, rng, pool)

    def _cluster_metrics(
        self, stage: Stage, assignment: ClusterAssignment, agreement: float | None
    ) -> dict[str, float | None]:
        values: dict[str, float | None] = {
            "nmi_previous": agreement,
            **cluster_health(assignment.sizes),
            "iterations": float(assignment.num_iterations),
            "inertia": float(assignment.inertia),
        }
        return {_key("cluster", stage, name): value for name, value in values.items()}

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self._clock[phase] = self._clock.get(phase, 0.0) + time.perf_counter() - begun


def _place(epoch: int, stage: Stage, step: int, num_steps: int) -> str:
    return f"epoch {epoch + 1}, step {step} of {num_steps} of the {stage.name} stage"


def _key(group: str, stage: Stage, name: str) -> str:
    """The supervised stage has the plain key; keys of the unlabeled stage end in ``_unlabeled``."""
    return f"{group}/{name}" if stage.supervised else f"{group}/{name}_unlabeled"


def _mean_losses(records: list[dict[str, float]], stage: Stage) -> dict[str, float | None]:
    """Mean of every loss of the stage over its steps."""
    return {
        _key("train", stage, f"loss_{name}"): float(np.mean([record[name] for record in records]))
        for name in records[0]
    }
