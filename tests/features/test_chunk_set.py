"""Gathered chunks against chunking one utterance at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corpus_support import Spoken, make_store, many, mel_format, write_corpus

from raydec.features.chunk_set import ChunkSet, normalizer_of
from raydec.features.chunking import chunk_utterance
from raydec.features.store import FeatureStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("chunk-set")
    utterances = [
        *many(18),
        Spoken("long.wav", seconds=2.6, arousal=None, valence=2.5, speaker=None),
        Spoken("tiny.wav", seconds=0.01, split="unlabeled", arousal=None),
    ]
    return make_store(write_corpus(folder / "audio", utterances), folder / "store")


def expected_chunks(chunks: ChunkSet) -> torch.Tensor:
    per_utterance = []
    for row in chunks.rows:
        frames = torch.from_numpy(np.array(chunks.store.frames(int(row))))
        normalized = chunks.normalizer.normalize(frames)
        per_utterance.append(chunk_utterance(normalized, chunks.num_chunks, chunks.form.chunk_frames))
    return torch.cat(per_utterance)


@pytest.mark.parametrize(
    ("num_chunks", "chunk_frames", "scale"), [(11, 62, "power"), (3, 80, "log"), (2, 53, "log")]
)
def test_gather_equals_chunking_each_utterance(
    store: FeatureStore, num_chunks: int, chunk_frames: int, scale: str
) -> None:
    rows = np.array([19, 18, 0, 5, 17, 18])
    form = mel_format(scale=scale, num_chunks=num_chunks, chunk_frames=chunk_frames)
    chunks = ChunkSet(store, rows, normalizer_of(store, form), form)
    assert len(chunks) == 6 * num_chunks
    expected = expected_chunks(chunks)
    everything = np.arange(len(chunks))
    assert torch.equal(chunks.gather(everything), expected)
    held = ChunkSet(store, rows, normalizer_of(store, form), form)
    held.hold_on("cpu")
    assert torch.equal(held.gather(everything), expected)
    shuffled = np.random.default_rng(0).integers(len(chunks), size=50)
    assert torch.equal(chunks.gather(shuffled), expected[shuffled])


def test_a_set_spans_shards(store: FeatureStore) -> None:
    assert len(store.shards) == 2
    chunks = ChunkSet(store, store.rows(), normalizer_of(store, mel_format()), mel_format())
    last_of_first, first_of_second = 15 * 11 + 10, 16 * 11
    assert torch.equal(
        chunks.gather(np.array([first_of_second, last_of_first])),
        expected_chunks(chunks)[[first_of_second, last_of_first]],
    )


def test_gather_of_nothing_and_outside(store: FeatureStore) -> None:
    chunks = ChunkSet(store, np.array([1, 2]), normalizer_of(store, mel_format()), mel_format())
    assert chunks.gather(np.array([], dtype=np.int64)).shape == (0, 62, 128)
    for index in (-1, 22):
        with pytest.raises(IndexError, match="0 to 21"):
            chunks.gather(np.array([0, index]))


def test_the_size_of_a_set_is_that_of_its_frames(store: FeatureStore) -> None:
    chunks = ChunkSet(store, np.array([18, 19]), normalizer_of(store, mel_format()), mel_format())
    assert chunks.num_bytes == store.frames(18).nbytes + store.frames(19).nbytes


@pytest.mark.gpu
def test_gather_on_a_gpu_gives_the_same_frames(store: FeatureStore) -> None:
    chunks = ChunkSet(store, np.array([19, 3]), normalizer_of(store, mel_format()), mel_format())
    expected, everything = chunks.gather(np.arange(22)), np.arange(22)
    torch.testing.assert_close(chunks.gather(everything, "cuda").cpu(), expected)
    chunks.hold_on("cuda")
    torch.testing.assert_close(chunks.gather(everything, "cuda").cpu(), expected)


def test_an_empty_set_is_legal(store: FeatureStore) -> None:
    chunks = ChunkSet(store, store.rows(split="test3"), normalizer_of(store, mel_format()), mel_format())
    assert len(chunks) == 0
    assert chunks.labels(["arousal"]).shape == (0, 1)


def test_labels_speakers_and_owners(store: FeatureStore) -> None:
    chunks = ChunkSet(store, np.array([18, 3, 19]), normalizer_of(store, mel_format()), mel_format())
    expected = [[2.5, np.nan], [np.nan, 4.0], [np.nan, np.nan]]
    np.testing.assert_array_equal(chunks.labels(["valence", "arousal"]), expected)
    assert chunks.speakers() == [None, "s1", "s1"]
    np.testing.assert_array_equal(chunks.utterance_of(np.array([0, 10, 11, 32])), [0, 0, 1, 2])


def test_gathered_chunks_are_the_callers_own(store: FeatureStore) -> None:
    chunks = ChunkSet(store, np.array([4]), normalizer_of(store, mel_format()), mel_format())
    first = chunks.gather(np.array([0]))
    before = first.clone()
    first.zero_()
    assert torch.equal(chunks.gather(np.array([0])), before)
