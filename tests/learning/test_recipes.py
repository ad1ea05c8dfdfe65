"""What the recipes decide, and the pieces of recipe=modern against slow, obvious versions."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stores import make_store

from raydec.config import Config, config_from_dict, load_config
from raydec.errors import UserError
from raydec.features.chunk_set import ChunkSet
from raydec.learning.calibration import LARGEST_FACTOR, calibrate
from raydec.learning.clusterer import ClusterAssignment, ClusteringTask, LocalClusterer
from raydec.learning.epoch_draw import BatchDraw
from raydec.learning.inference import predict_utterances
from raydec.learning.label_aware import assign_with_labels, label_columns
from raydec.learning.recipes import fill_recipe
from raydec.learning.step import BatchSource
from raydec.learning.training import NullRecorder, Training
from raydec.learning.worker import LocalWorker, share_of
from raydec.runs.training_loop import open_data
from raydec.search.score import score_run

SCALES = ("power", "log")


def config_of(store: Path | None = None, **training: object) -> Config:
    return config_from_dict(
        {
            "data": {"store": str(store or "unused")},
            "model": {"channels": [4, 4, 4, 4], "embedding_dim": 8},
            "training": {"epochs": 1, "batch_utterances": 4, **training},
            "clustering": {"num_clusters": 3},
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("recipes"), num_train=12, num_other=12, num_unlabeled=10)


def test_the_reference_recipe_is_the_published_system() -> None:
    filled = fill_recipe(
        config_from_dict({"data": {"store": "s"}, "training": {"recipe": "reference"}}), 500, SCALES
    )
    assert filled.model.channels == (32, 32, 64, 64, 128, 128, 128)
    assert (filled.model.frame_pooling, filled.model.initialization) == ("flatten", "published")
    training = filled.training
    assert (training.batch_utterances, training.batches, training.draws) == (64, "chunks", "balanced")
    assert (training.random_offsets, training.calibration, training.schedule) == (False, "none", "two_stage")
    assert (filled.loss.ccc_level, filled.loss.cluster_weight) == ("chunk", 1.0)
    assert (filled.features.scale, filled.clustering.label_weight) == ("power", 0.0)


@pytest.mark.parametrize(("num_labeled", "batch"), [(50, 16), (2_000, 16), (2_001, 32), (50_000, 64)])
def test_modern_is_the_default_and_its_batch_follows_the_size(num_labeled: int, batch: int) -> None:
    config = config_from_dict({"data": {"store": "s"}})
    filled = fill_recipe(config, num_labeled, SCALES)
    assert filled.training.recipe == "modern" and filled.training.batch_utterances == batch
    assert filled.training.selection == ("last" if num_labeled <= 2_000 else "best")
    classes = config_from_dict({"data": {"store": "s", "attributes": [], "emotions": ["A", "N"]}})
    assert fill_recipe(classes, num_labeled, SCALES).training.selection == "best"
    assert filled.loss.cluster_weight == pytest.approx(1 / np.log(10))
    assert fill_recipe(filled, num_labeled, SCALES) == filled
    assert fill_recipe(config, num_labeled, ("plain",)).features.scale is None


@pytest.mark.parametrize(("settings", "kept"), [({}, 5), ({"selection": "best"}, 2), ({"patience": 4}, 2)])
def test_modern_keeps_the_last_epoch_and_not_a_lucky_one(
    store: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], kept: int
) -> None:
    """Scores of five epochs, of which the second is the best."""
    validation = [0.1, 0.9, 0.2, 0.6, 0.7]
    scores = iter(validation)
    config = config_of(store, epochs=5, **settings)
    _, data = open_data(config)
    worker = LocalWorker()
    training = Training(config, data, worker, LocalClusterer(worker, config.clustering), NullRecorder())
    monkeypatch.setattr(training, "_validate", lambda state: {"valid/ccc": next(scores)})
    state, _ = training.run()
    assert (state.best_epoch, state.best_score) == (kept, validation[kept - 1])
    run = score_run(state.history, "valid/ccc")
    assert run is not None and (run.best_epoch, run.score) == (kept, validation[kept - 1])


def test_patience_and_the_last_epoch_exclude_each_other() -> None:
    with pytest.raises(UserError, match=r"patience waits for a better epoch"):
        load_config(None, ["training.patience=3", "training.selection=last"])


def test_what_is_set_stays() -> None:
    given = {
        "data": {"store": "s"},
        "model": {"frame_pooling": "flatten"},
        "training": {"random_offsets": False, "batch_utterances": 7},
        "loss": {"cluster_weight": 0.0},
    }
    filled = fill_recipe(config_from_dict(given), 100, SCALES)
    assert filled.model.frame_pooling == "flatten" and filled.model.initialization == "kaiming"
    assert (filled.training.random_offsets, filled.training.batch_utterances) == (False, 7)
    assert filled.loss.cluster_weight == 0.0


def chunk_set_of(store: Path) -> tuple[Config, ChunkSet]:
    config = config_of(store)
    _, data = open_data(config)
    return config, data.labeled


def test_chunks_at_places_are_slices_of_the_utterance(store: Path) -> None:
    _, chunk_set = chunk_set_of(store)
    utterances, places = np.array([0, 3, 3, 11]), np.array([0.0, 0.5, 0.999, 0.25])
    gathered = chunk_set.gather_at(utterances, places)
    for row, (utterance, place) in enumerate(zip(utterances, places, strict=True)):
        frames = torch.from_numpy(chunk_set.store.frames(chunk_set.rows[utterance]).astype(np.float32))
        length = chunk_set.form.chunk_frames
        start = int(place * (max(len(frames) - length, 0) + 1))
        numbers = torch.arange(start, start + length) % len(frames)
        torch.testing.assert_close(gathered[row], chunk_set.normalizer.normalize(frames[numbers]))


def test_random_chunks_belong_to_their_utterances_whatever_the_number_of_workers(store: Path) -> None:
    _, chunk_set = chunk_set_of(store)
    labels = np.arange(len(chunk_set), dtype=np.int32).reshape(-1, chunk_set.num_chunks)
    targets = np.arange(chunk_set.num_utterances, dtype=np.float64)[:, None]
    draws = np.array([5, 0, 7, 7, 2])

    class Part(LocalWorker):
        def __init__(self, rank: int, world_size: int) -> None:
            super().__init__()
            self.rank, self.world_size = rank, world_size  # type: ignore[misc]

    def batches(world_size: int) -> list[torch.Tensor]:
        parts = []
        for rank in range(world_size):
            source = BatchSource(
                chunk_set, Part(rank, world_size), targets,
                by_utterance=True, chunks_per_utterance=3, random_offsets=True,
            )  # fmt: skip
            own = share_of(len(draws), rank, world_size)
            drawn = BatchDraw(len(draws), own, draws[own], labels[draws[own]])
            batch = source.batch(drawn, np.random.default_rng(1))
            assert batch.num_global_chunks == 15 and batch.targets is not None
            assert batch.pseudo_labels is not None
            assert torch.equal(batch.pseudo_labels // chunk_set.num_chunks, batch.targets[:, 0].long())
            parts.append(torch.cat([batch.chunks.flatten(1), batch.targets], dim=1))
        return parts

    whole = batches(1)[0]
    assert torch.equal(torch.cat(batches(2)), whole) and torch.equal(torch.cat(batches(5)), whole)
    assert whole[:, -1].tolist() == [5.0] * 3 + [0.0] * 3 + [7.0] * 6 + [2.0] * 3


def test_labels_decide_clusters_where_they_weigh_most_and_nothing_where_they_weigh_nothing() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 40)
    # Embeddings form three other groups, each mixing all labels.
    embeddings = (rng.permutation(groups)[:, None] * 10.0 + rng.normal(size=(120, 4))).astype(np.float32)
    labels = np.array([-1.2, 0.0, 1.2])[groups][:, None]
    worker = LocalWorker()
    clusterer = LocalClusterer(worker, config_of().clustering)

    def clusters(weight: float, labels: np.ndarray) -> np.ndarray:
        task = ClusteringTask(0, "labeled", 3, seed=1)
        return assign_with_labels(clusterer, worker, task, embeddings, labels, weight=weight).labels

    by_label = clusters(100.0, labels)
    assert all(len(set(by_label[groups == group])) == 1 for group in range(3)) and len(set(by_label)) == 3
    by_embedding = np.rint(embeddings.mean(axis=1) / 10).astype(int)
    plain = clusters(0.0, labels)
    assert all(len(set(plain[by_embedding == group])) == 1 for group in range(3))
    # Chunks without a label join the cluster that is nearest to their embedding.
    some = labels.copy()
    some[::4] = np.nan
    joined = clusters(0.0, some)
    assert all(len(set(joined[by_embedding == group])) == 1 for group in range(3))


class FirstRows:
    """A clusterer that takes no memory: one cluster, at the first row."""

    def assign(self, task: ClusteringTask, embeddings: np.ndarray) -> ClusterAssignment:
        labels = np.zeros(len(embeddings), np.int32)
        return ClusterAssignment(labels, embeddings[:1].copy(), 0.0, np.array([len(embeddings)]), 1, "none")

    def describe(self) -> dict[str, float]:
        return {}


def test_labels_beside_embeddings_take_no_copies_in_double_precision() -> None:
    embeddings = np.random.default_rng(0).standard_normal((200_000, 64), np.float32)
    labels = np.where(np.arange(200_000)[:, None] % 2, np.nan, 1.0)
    task = ClusteringTask(0, "labeled", 1, seed=1)
    tracemalloc.start()
    try:
        assign_with_labels(FirstRows(), LocalWorker(), task, embeddings, labels, weight=1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * embeddings.nbytes, f"{peak / embeddings.nbytes:.1f} times the embeddings"


def test_label_columns_are_normalised_and_missing_where_unlabeled(store: Path) -> None:
    config = config_of(store)
    _, data = open_data(config)
    columns = label_columns(data.pooled, data.targets.outputs, LocalWorker())
    assert columns.shape == (len(data.pooled), 3)
    num_labeled = len(data.labeled)
    np.testing.assert_allclose(np.nanvar(columns[:num_labeled], axis=0).sum(), 1.0, rtol=1e-6)
    assert np.isnan(columns[num_labeled:]).all()
    assert np.array_equal(columns[0], columns[data.labeled.num_chunks - 1])


def test_calibration_gives_predictions_the_spread_of_the_labels(store: Path) -> None:
    config = config_of(store)
    _, data = open_data(config)
    worker = LocalWorker()
    training = Training(config, data, worker, LocalClusterer(worker, config.clustering), NullRecorder())
    network, outputs = training.network, data.targets.outputs
    with torch.no_grad():
        network.emotion_head.top.bias += 0.3

    def normalised() -> np.ndarray:
        values = predict_utterances(network, data.validation, worker, outputs).values
        return (values - outputs.mean[:3]) / outputs.std[:3]

    before = normalised()
    factor = np.clip(1 / before.std(axis=0), 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    calibrate(network, data.validation, worker, outputs)
    expected = (before - before.mean(axis=0)) * factor + before.mean(axis=0)
    np.testing.assert_allclose(normalised(), expected, atol=1e-4)


def test_few_labels_are_trained_beside_as_many_unlabeled_utterances(store: Path) -> None:
    config = config_of(store)
    _, data = open_data(config)
    worker = LocalWorker()
    training = Training(config, data, worker, LocalClusterer(worker, config.clustering), NullRecorder())
    [stage] = training._stages
    runner = training._epochs
    found = [batch.rows for batch in runner._draw(0, stage, None)]
    assert [len(batch) for batch in found] == [8, 8, 8]
    labeled = np.concatenate([batch[:4] for batch in found])
    assert sorted(labeled.tolist()) == list(range(12))
    beside = np.concatenate([batch[4:] for batch in found])
    # Ten unlabeled utterances: each once, then again.
    assert set(beside[:10].tolist()) == set(range(12, 22)) and beside.min() == 12
