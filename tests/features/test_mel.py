"""Mel frames, normalisation and merged statistics against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydec.features.frame_moments import FrameMoments
from raydec.features.mel import mel_frames
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.normalization import FrameNormalizer, scale_frames


def slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Slaney's auditory toolbox: linear to 1 kHz, then 27 steps per factor of 6.4."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))


def slaney_filters(num_bins: int = 257, num_mels: int = 128) -> np.ndarray:
    top_mel = 15 + 27 * np.log(8.0) / np.log(6.4)
    edges = slaney_hz(np.linspace(0, top_mel, num_mels + 2))
    bins = np.linspace(0, 8000, num_bins)
    filters = np.zeros((num_bins, num_mels))
    for band, (low, center, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        rising, falling = (bins - low) / (center - low), (high - bins) / (high - center)
        filters[:, band] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


def reference_mel(waveform: np.ndarray) -> np.ndarray:
    """The specification in float64 numpy."""
    samples = waveform.astype(np.float64) / np.abs(waveform).max()
    padded = np.pad(samples, 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = [padded[start : start + 512] * window for start in range(0, len(padded) - 511, 256)]
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ slaney_filters()


def speechlike(num_samples: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    tone = np.sin(2 * np.pi * 180 * np.arange(num_samples) / 16_000)
    return (0.05 * noise + 0.2 * tone).astype(np.float32)


@pytest.mark.parametrize("num_samples", [257, 800, 15_999, 16_000, 48_123])
def test_mel_frames_equal_the_specification(num_samples: int) -> None:
    waveform = speechlike(num_samples)
    frames = mel_frames(waveform)
    assert frames.shape == (1 + num_samples // 256, 128)
    np.testing.assert_allclose(frames.numpy(), reference_mel(waveform), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_samples", [1, 2, 100, 256])
def test_waveforms_too_short_to_mirror_are_padded_with_zeros(num_samples: int) -> None:
    waveform = speechlike(num_samples)
    waveform[0] = 0.3
    padded = np.concatenate([waveform, np.zeros(257 - num_samples, np.float32)])
    frames = mel_frames(waveform)
    assert frames.shape == (2, 128)
    np.testing.assert_allclose(frames.numpy(), reference_mel(padded), rtol=1e-4, atol=1e-6)


def test_level_does_not_matter_and_silence_is_not_nan() -> None:
    waveform = speechlike(5000)
    loud, quiet = mel_frames(waveform), mel_frames(waveform * np.float32(2**-20))
    torch.testing.assert_close(loud, quiet, rtol=1e-6, atol=0)
    assert torch.equal(mel_frames(np.zeros(1000, np.float32)), torch.zeros(4, 128))


def test_peak_normalisation_is_a_parameter() -> None:
    waveform = speechlike(5000)
    raw = mel_frames(waveform, MelFrontEnd(peak_normalize=False))
    scaled = mel_frames(waveform) * float(np.abs(waveform).max()) ** 2
    torch.testing.assert_close(raw, scaled, rtol=1e-4, atol=1e-7)


def test_log_scale_is_the_natural_logarithm() -> None:
    frames = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(
        scale_frames(frames, "log"), torch.tensor([[np.log(1e-6), np.log(1 + 1e-6)]]).float()
    )
    assert scale_frames(frames, "power") is frames


def test_normalizer_equals_the_formula_and_leaves_its_input_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(5, 7, 4, generator=generator).half()
    frames[0, 0, 0] = 40.0
    before = frames.clone()
    mean, std = np.array([0.5, 0.4, 0.3, 0.2], np.float32), np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    for scale in ("power", "log"):
        scaled = np.log(frames.double().numpy() + 1e-6) if scale == "log" else frames.double().numpy()
        expected = np.clip((scaled - mean) / std, -3, 3)
        result = FrameNormalizer(mean, std, scale, 3.0).normalize(frames)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)
    full = frames.float()
    FrameNormalizer(mean, std, "power", 3.0).normalize(full)
    FrameNormalizer(mean, std, "power", 3.0).normalize(full, torch.ones(4))
    assert torch.equal(frames, before) and torch.equal(full, before.float())


def test_constant_band_gives_zero_and_anything_else_in_it_the_clip() -> None:
    normalizer = FrameNormalizer(np.zeros(2, np.float32), np.zeros(2, np.float32), "power", 3.0)
    assert normalizer.normalize(torch.tensor([[0.0, 5.0]])).tolist() == [[0.0, 3.0]]


@pytest.mark.parametrize("cuts", [(), (0,), (1, 1, 40), (13, 60, 61, 99)])
def test_moments_merged_over_any_split_equal_the_whole(cuts: tuple[int, ...]) -> None:
    frames = np.random.default_rng(1).gamma(0.3, 2.0, (100, 128)).astype(np.float16)
    merged = FrameMoments.empty(("power", "log"), 128)
    for part in np.split(frames, cuts):
        merged = merged.merge(FrameMoments.from_dict(FrameMoments.of(part, ("power", "log")).to_dict()))
    assert merged.count == 100
    for scale, values in (
        ("power", frames.astype(np.float64)),
        ("log", np.log(frames.astype(np.float64) + 1e-6)),
    ):
        mean, std = merged.mean_std(scale)
        np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(std, values.std(axis=0), rtol=1e-12)


def test_parameters_survive_json_and_name_what_differs() -> None:
    parameters = MelFrontEnd(n_mels=64)
    assert MelFrontEnd.from_dict(parameters.to_dict()) == parameters
    assert parameters.differences(MelFrontEnd()) == ["n_mels 64 instead of 128"]
    with pytest.raises(ValueError, match="n_fft"):
        MelFrontEnd.from_dict({**parameters.to_dict(), "n_fft": "512"})
    with pytest.raises(ValueError, match="window"):
        MelFrontEnd.from_dict({**parameters.to_dict(), "window": 512})


def test_removing_the_offset_is_what_subtracting_the_mean_does() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    without = samples - samples.mean()
    removed = mel_frames(samples + np.float32(0.3), MelFrontEnd(remove_dc=True))
    np.testing.assert_allclose(removed, mel_frames(without), rtol=1e-3, atol=1e-6)
    kept = mel_frames(samples + np.float32(0.3))
    assert kept[:, 0].mean() > 100 * removed[:, 0].mean()
