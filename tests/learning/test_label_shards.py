"""Labels that stay on their workers: the same draws for any number of workers."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import normalized_mutual_info_score
from thread_worker import ThreadWorker, on_workers

from raydec.errors import UserError
from raydec.learning import epoch_draw
from raydec.learning.alignment import match_clusters, normalized_mutual_information, shared_chunks
from raydec.learning.checkpoint import RunState, load_state, save_labels, save_state
from raydec.learning.epoch_draw import (
    BatchDraw,
    EpochDraw,
    Lookup,
    lookup_chunks,
    lookup_rows,
    lookup_utterances_of_chunks,
)
from raydec.learning.label_shards import LabelShards
from raydec.learning.sampling import BalancedDraw, BatchPlan, EvenDraw
from raydec.learning.shuffle import Shuffle
from raydec.learning.worker import LocalWorker, share_of

NUM_CLUSTERS, NUM_CHUNKS, NUM_UTTERANCES = 7, 11, 50
WORLD_SIZES = [1, 2, 3, 5]


def made_labels(seed: int = 0, num_utterances: int = NUM_UTTERANCES) -> np.ndarray:
    """Clusters of very different sizes; cluster 3 is empty, and the last utterances are alone in theirs."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(6, num_utterances * NUM_CHUNKS, p=[0.5, 0.3, 0.1, 0, 0.09, 0.01]).astype(np.int32)
    labels[-15:] = 6
    return labels


def share_of_labels(labels: np.ndarray, worker: ThreadWorker | LocalWorker) -> np.ndarray:
    own = share_of(len(labels) // NUM_CHUNKS, worker.rank, worker.world_size)
    return labels[own.start * NUM_CHUNKS : own.stop * NUM_CHUNKS].copy()


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_places_and_groups_are_found_on_whatever_worker(world_size: int) -> None:
    labels = made_labels()
    order = np.argsort(labels, kind="stable")

    def run(worker: ThreadWorker) -> None:
        shards = LabelShards(worker, share_of_labels(labels, worker), NUM_CLUSTERS)
        assert shards.sizes.tolist() == np.bincount(labels, minlength=NUM_CLUSTERS).tolist()
        # Each worker has other questions, the last one none.
        rng = np.random.default_rng(worker.rank)
        places = rng.integers(len(labels), size=0 if worker.rank == 4 else 200 + worker.rank)
        rows, found = shards.at(places)
        np.testing.assert_array_equal(rows, order[places])
        np.testing.assert_array_equal(found, labels[order[places]])
        utterances = rng.integers(NUM_UTTERANCES, size=30 * worker.rank)
        np.testing.assert_array_equal(
            shards.labels_of(utterances, NUM_CHUNKS), labels.reshape(-1, NUM_CHUNKS)[utterances]
        )

    on_workers(world_size, run)


def test_workers_without_rows_take_part() -> None:
    labels = made_labels(num_utterances=2)

    def run(worker: ThreadWorker) -> None:
        shards = LabelShards(worker, share_of_labels(labels, worker), NUM_CLUSTERS)
        places = np.arange(22)[worker.rank :: 5]
        np.testing.assert_array_equal(shards.at(places)[0], np.argsort(labels, kind="stable")[places])

    on_workers(5, run)


def lookup_of(kind: str, shards: LabelShards, whole_size: int) -> tuple[Lookup, int]:
    """A lookup and the number of its draws."""
    rng = np.random.default_rng(8)
    num_chunks = NUM_UTTERANCES * NUM_CHUNKS
    if kind == "chunks":
        return lookup_chunks(BalancedDraw(shards.sizes, num_chunks, rng, whole_size), shards), num_chunks
    if kind == "utterances":
        even = EvenDraw(shards.sizes, rng)
        return lookup_utterances_of_chunks(even, shards, NUM_CHUNKS), NUM_UTTERANCES
    return lookup_rows(Shuffle(NUM_UTTERANCES, rng, whole_size), shards, NUM_CHUNKS), NUM_UTTERANCES


@pytest.mark.parametrize("block", [3, 2**20])
@pytest.mark.parametrize("whole_size", [2**20, 0])
@pytest.mark.parametrize("kind", ["chunks", "utterances", "shuffled"])
def test_any_number_of_workers_draws_what_one_draws(
    kind: str, whole_size: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_draw, "_BLOCK", block)
    labels = made_labels()

    def run(worker: ThreadWorker) -> list[BatchDraw]:
        shards = LabelShards(worker, share_of_labels(labels, worker), NUM_CLUSTERS)
        lookup, num_draws = lookup_of(kind, shards, whole_size)
        draw = EpochDraw(BatchPlan(num_draws, 16), worker, lookup)
        assert len(draw) == -(-num_draws // 16)
        return list(draw)

    alone = on_workers(1, run)[0]
    for batch in alone:
        assert batch.labels is not None
        if kind == "chunks":
            np.testing.assert_array_equal(batch.labels[:, 0], labels[batch.rows])
        else:
            np.testing.assert_array_equal(batch.labels, labels.reshape(-1, NUM_CHUNKS)[batch.rows])
    drawn = np.concatenate([batch.rows for batch in alone])
    if kind == "chunks":  # six clusters have a chunk
        quotas = np.bincount(labels[drawn], minlength=NUM_CLUSTERS)
        assert quotas[3] == 0 and np.ptp(np.delete(quotas, 3)) <= 1
    if kind == "shuffled":
        assert sorted(drawn.tolist()) == list(range(NUM_UTTERANCES))
    for world_size in WORLD_SIZES[1:]:
        for whole, *parts in zip(alone, *on_workers(world_size, run), strict=True):
            assert {part.num_draws for part in parts} == {whole.num_draws}
            assert [part.own.start for part in parts[1:]] == [part.own.stop for part in parts[:-1]]
            np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
            np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), whole.labels)


def test_a_worker_holds_its_share_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of one of many workers, of which only this one is real: the others are not asked."""

    monkeypatch.setattr(epoch_draw, "_BLOCK", 2**11)

    class OneOfMany(LocalWorker):
        def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
            return torch.stack([tensor] * self.world_size)

        def exchange(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
            return list(parts)  # answers of the right number from this worker's own rows

    def peak_bytes(world_size: int) -> int:
        worker = OneOfMany()
        worker.world_size = world_size  # type: ignore[misc]
        num_rows = 2**18
        labels = np.arange(num_rows // world_size, dtype=np.int32) % NUM_CLUSTERS
        tracemalloc.start()
        shards = LabelShards(worker, labels, NUM_CLUSTERS)
        draw = BalancedDraw(shards.sizes, num_rows, np.random.default_rng(0), 0)

        def lookup(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows, found = shards.at(draw(positions))
            return rows, found[:, None]

        EpochDraw(BatchPlan(num_rows, 4096), worker, lookup)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # What does not shrink is the memory of one block.
    assert peak_bytes(16) < peak_bytes(1) / 10


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_agreement_and_matching_add_up_over_workers(world_size: int) -> None:
    labels, previous = made_labels(0), made_labels(1)

    def run(worker: ThreadWorker) -> np.ndarray:
        own = [share_of_labels(each, worker) for each in (labels, previous)]
        return worker.all_sum(torch.from_numpy(shared_chunks(*own, NUM_CLUSTERS))).numpy()

    for shared in on_workers(world_size, run):
        expected = normalized_mutual_info_score(labels, previous)
        assert normalized_mutual_information(shared) == pytest.approx(expected, abs=1e-12)
        np.testing.assert_array_equal(
            match_clusters(shared), match_clusters(shared_chunks(labels, previous, NUM_CLUSTERS))
        )


def saved(folder: Path, labels: np.ndarray, world_size: int) -> Path:
    """A checkpoint that several workers wrote."""
    folder.mkdir()
    save_state(RunState(epoch=3, sizes={"labeled": np.bincount(labels, minlength=NUM_CLUSTERS)}), folder)
    for rank in range(world_size):
        own = share_of(len(labels) // NUM_CHUNKS, rank, world_size)
        rows = slice(own.start * NUM_CHUNKS, own.stop * NUM_CHUNKS)
        save_labels({"labeled": labels[rows]}, {"labeled": rows.start}, folder)
    return folder


@pytest.mark.parametrize("readers", WORLD_SIZES)
@pytest.mark.parametrize("writers", WORLD_SIZES)
def test_labels_are_resumed_by_another_number_of_workers(tmp_path: Path, writers: int, readers: int) -> None:
    labels = made_labels()
    folder = saved(tmp_path / "checkpoint", labels, writers)
    np.testing.assert_array_equal(load_state(folder).labels["labeled"], labels)
    parts = []
    for rank in range(readers):
        own = share_of(NUM_UTTERANCES, rank, readers)
        rows = slice(own.start * NUM_CHUNKS, own.stop * NUM_CHUNKS)
        state = load_state(folder, {"labeled": rows, "unlabeled": slice(0, 0)})
        assert state.epoch == 3 and set(state.labels) == {"labeled"}
        parts.append(state.labels["labeled"])
    np.testing.assert_array_equal(np.concatenate(parts), labels)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", made_labels(), 3)
    sorted(folder.glob("labels-*"))[1].unlink()
    with pytest.raises(UserError, match="it has the labels of 363 of the chunks 0 to"):
        load_state(folder)
    assert len(load_state(folder, {"labeled": slice(0, 16 * NUM_CHUNKS)}).labels["labeled"]) == 176


def test_a_checkpoint_of_version_1_holds_all_labels_itself(tmp_path: Path) -> None:
    labels = made_labels()
    save_state(RunState(epoch=2, network={"w": torch.ones(2)}), tmp_path)
    document = json.loads((tmp_path / "state.json").read_text())
    items = dict(document["state"]["$items"])
    del items["sizes"]
    items["labels"] = {"$items": [["labeled", {"$array": "/labels/labeled"}]]}
    document = {"schema_version": 1, "state": {"$items": list(items.items())}}
    (tmp_path / "state.json").write_text(json.dumps(document))
    tensors = load_file(tmp_path / "state.safetensors")
    save_file(tensors | {"/labels/labeled": torch.from_numpy(labels)}, tmp_path / "state.safetensors")

    whole = load_state(tmp_path)
    np.testing.assert_array_equal(whole.labels["labeled"], labels)
    assert whole.epoch == 2 and whole.sizes["labeled"].tolist() == np.bincount(labels).tolist()
    share = load_state(tmp_path, {"labeled": slice(22, 55), "unlabeled": slice(0, 11)})
    np.testing.assert_array_equal(share.labels["labeled"], labels[22:55])
