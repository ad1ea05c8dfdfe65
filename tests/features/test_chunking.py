"""Chunk positions against a loop written from the specification."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydec.features.chunking import chunk_starts, chunk_utterance


def brute_force_starts(num_frames: int, num_chunks: int, chunk_frames: int) -> list[int]:
    """The specification word for word: truncate (T - m) / (C - 1) toward zero, never below zero."""
    step = max(int((num_frames - chunk_frames) / (num_chunks - 1)), 0)
    return [chunk * step for chunk in range(num_chunks)]


def brute_force_chunks(frames: np.ndarray, num_chunks: int, chunk_frames: int) -> np.ndarray:
    rows = [list(row) for row in frames]
    while len(rows) < chunk_frames:
        rows.append(rows[len(rows) - len(frames)])
    starts = brute_force_starts(len(rows), num_chunks, chunk_frames)
    return np.array([rows[start : start + chunk_frames] for start in starts])


@pytest.mark.parametrize(("num_chunks", "chunk_frames"), [(11, 62), (2, 53), (7, 80)])
def test_starts_equal_brute_force_for_every_length(num_chunks: int, chunk_frames: int) -> None:
    lengths = np.arange(1, 1001)
    expected = [brute_force_starts(int(length), num_chunks, chunk_frames) for length in lengths]
    np.testing.assert_array_equal(chunk_starts(lengths, num_chunks, chunk_frames), expected)
    one_by_one = [chunk_starts(int(length), num_chunks, chunk_frames) for length in lengths]
    np.testing.assert_array_equal(one_by_one, expected)


def test_chunks_equal_brute_force_for_every_length() -> None:
    frames = np.arange(2000.0).reshape(1000, 2)
    for length in range(1, 1001):
        chunks = chunk_utterance(torch.from_numpy(frames[:length]))
        np.testing.assert_array_equal(chunks.numpy(), brute_force_chunks(frames[:length], 11, 62))


@pytest.mark.parametrize(("length", "expected_frames"), [(1, 62), (52, 62), (53, 53), (61, 61), (62, 62)])
def test_as_is_keeps_short_utterances_whole_where_the_published_code_does(
    length: int, expected_frames: int
) -> None:
    frames = torch.arange(length * 3.0).reshape(length, 3)
    chunks = chunk_utterance(frames, short="as_is")
    assert chunks.shape == (11, expected_frames, 3)
    assert all(torch.equal(chunk, chunks[0]) for chunk in chunks)
    assert torch.equal(chunks[0], frames.repeat(62, 1)[:expected_frames])


def test_published_steps() -> None:
    assert chunk_starts(688)[1] == 62  # no overlap, no gap
    assert chunk_starts(71)[1] == 0
    assert chunk_starts(72)[1] == 1
    assert chunk_starts(938)[-1] + 62 <= 938
