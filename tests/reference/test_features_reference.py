"""Features against the published system's intermediate values.

Only recordings at 16 kHz are compared: others were resampled by another library there.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from raydec.features.audio import load_audio
from raydec.features.chunking import chunk_starts, chunk_utterance
from raydec.features.mel import mel_frames
from raydec.features.normalization import FrameNormalizer

pytestmark = pytest.mark.reference


def published_normalizer(folder: Path) -> FrameNormalizer:
    loadmat = pytest.importorskip("scipy.io").loadmat
    mean, std = (
        loadmat(folder / "norm" / f"feat_norm_{name}.mat")["normal_para"].ravel().astype(np.float32)
        for name in ("means", "stds")
    )
    return FrameNormalizer(mean, std, "power", 3.0)


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("stem", ["e05_62frames", "g01", "g06", "g15"])
def test_mel_normalised_frames_and_chunks_match_the_published_values(reference_dir: Path, stem: str) -> None:
    expected = np.load(reference_dir / "arrays" / f"{stem}.npz", allow_pickle=False)
    frames = mel_frames(load_audio(reference_dir / "wav" / f"{stem}.wav"))
    normalized = published_normalizer(reference_dir).normalize(frames)
    chunks = chunk_utterance(normalized)
    assert relative_error(frames.numpy(), expected["mel"]) < 1e-5
    # Both sides are float32 transforms: a band 80 dB below the loudest of its frame is rounding noise, and
    # no scale resolves less than the logarithm's offset of 1e-6.
    np.testing.assert_allclose(frames.numpy(), expected["mel"], rtol=1e-4, atol=1e-6)
    assert relative_error(normalized.numpy(), expected["feat"]) < 1e-4
    assert relative_error(chunks.numpy(), expected["chunks"][:, 0]) < 1e-4


def test_frame_counts_and_chunk_steps_match_the_published_ones(reference_dir: Path) -> None:
    with open(reference_dir / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["frames"]]
    assert rows
    for row in rows:
        frames = mel_frames(load_audio(reference_dir / "wav" / row["file"]))
        assert len(frames) == int(row["frames"]), row["file"]
        if int(row["frames"]) >= 62:
            assert chunk_starts(len(frames))[1] == int(row["step"]), row["file"]


def test_published_short_utterances_stay_whole_as_is(reference_dir: Path) -> None:
    frames = mel_frames(load_audio(reference_dir / "wav" / "e07_61frames.wav"))
    assert torch.equal(chunk_utterance(frames, short="as_is")[10], frames)
