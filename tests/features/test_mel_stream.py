"""Mel frames in blocks against those of the whole waveform."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from raydec.features import audio
from raydec.features.audio import measure_audio
from raydec.features.mel import mel_frames
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.mel_stream import mel_blocks


@pytest.mark.parametrize("num_samples", [513, 514, 20_000, 262_144, 262_145, 400_123])
@pytest.mark.parametrize("remove_dc", [False, True])
def test_blocks_of_frames_are_the_frames_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_samples: int, remove_dc: bool
) -> None:
    samples = np.random.default_rng(0).normal(0.05, 0.1, num_samples).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    parameters = MelFrontEnd(remove_dc=remove_dc)
    expected = mel_frames(samples, parameters)
    (kept,) = mel_blocks(measure_audio(tmp_path / "a.wav"), parameters)
    np.testing.assert_array_equal(kept, expected)
    monkeypatch.setattr(audio, "_KEPT_S", 0.0)
    blocks = list(mel_blocks(measure_audio(tmp_path / "a.wav"), parameters))
    assert len(blocks) > num_samples // (1200 * 256)
    joined = torch.cat(blocks)
    assert joined.shape == expected.shape
    np.testing.assert_allclose(joined, expected, rtol=1e-4, atol=1e-7)
