"""Chunk sets in a device's memory, with a CPU standing in for the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_support import mel_format
from stores import make_store

from raydec.features.chunk_set import ChunkSet, normalizer_of
from raydec.features.store import FeatureStore
from raydec.learning.residency import SHARE_OF_FREE_MEMORY, hold_where_they_fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[ChunkSet]:
    store = FeatureStore.open(make_store(tmp_path_factory.mktemp("residency")))
    form = mel_format(scale="log")
    normalizer = normalizer_of(store, form)
    return [ChunkSet(store, store.rows(split=split), normalizer, form) for split in ("train", "validation")]


def free_for(num_bytes: int) -> int:
    return int(np.ceil(num_bytes / SHARE_OF_FREE_MEMORY)) + 1


def test_a_cpu_holds_nothing_of_its_own(sets: list[ChunkSet]) -> None:
    assert hold_where_they_fit(sets, CPU) == []


def test_sets_are_held_in_order_while_there_is_room(sets: list[ChunkSet]) -> None:
    both, second = sets[0].num_bytes + sets[1].num_bytes, sets[1].num_bytes
    assert second < sets[0].num_bytes
    assert hold_where_they_fit(sets, CPU, lambda _: free_for(both)) == sets
    assert hold_where_they_fit(sets, CPU, lambda _: free_for(both - 1)) == sets[:1]
    assert hold_where_they_fit(sets, CPU, lambda _: free_for(second)) == sets[1:]
    assert hold_where_they_fit(sets, CPU, lambda _: 0) == []


def test_running_out_after_all_falls_back_to_the_map(
    sets: list[ChunkSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ChunkSet, device: torch.device) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    expected = sets[0].gather(np.arange(11))
    monkeypatch.setattr(ChunkSet, "hold_on", full)
    assert hold_where_they_fit(sets, CPU, lambda _: 2**40) == []
    assert torch.equal(sets[0].gather(np.arange(11)), expected)


def test_held_chunks_are_the_same_numbers(tmp_path: Path) -> None:
    store = FeatureStore.open(make_store(tmp_path))
    chunks = ChunkSet(store, store.rows(split="train"), normalizer_of(store, mel_format()), mel_format())
    expected = chunks.gather(np.arange(len(chunks)))
    (held,) = hold_where_they_fit([chunks], CPU, lambda _: 2**40)
    shuffled = np.random.default_rng(0).permutation(len(chunks))
    assert torch.equal(held.gather(shuffled), expected[shuffled])
