from pathlib import Path

import numpy as np
import pytest
import soundfile

from raydec.errors import AudioError
from raydec.features.audio import load_audio, measure_audio
from raydec.features.kaiser import KaiserResampler, resample_kaiser


def sine(rate: int, hz: float, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_a_tone_stays_the_same_tone(rate: int) -> None:
    resampled = resample_kaiser(sine(rate, 440.0), rate, 16_000)
    expected = sine(16_000, 440.0)[: len(resampled)]
    inner = slice(200, 7_800)
    np.testing.assert_allclose(resampled[inner], expected[inner], atol=2e-5)


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    assert np.abs(resample_kaiser(sine(44_100, 8_500.0), 44_100, 16_000)[200:-200]).max() < 1e-4


def test_equal_rates_leave_the_samples_alone() -> None:
    samples = sine(16_000, 440.0)
    assert resample_kaiser(samples, 16_000, 16_000) is samples


def load_audio_kaiser(path: Path, sample_rate: int) -> np.ndarray:
    return measure_audio(path, sample_rate, resampler=KaiserResampler).samples()


def test_files_are_mixed_down_and_resampled(tmp_path: Path) -> None:
    left, right = sine(44_100, 440.0), sine(44_100, 600.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44_100, subtype="FLOAT")
    expected = resample_kaiser((left + right) / 2, 44_100, 16_000)
    np.testing.assert_allclose(load_audio_kaiser(tmp_path / "a.wav", 16_000), expected, atol=1e-6)
    soundfile.write(tmp_path / "b.wav", left, 16_000)
    plain = load_audio(tmp_path / "b.wav", 16_000)
    np.testing.assert_array_equal(load_audio_kaiser(tmp_path / "b.wav", 16_000), plain)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_bad_files_fail_as_everywhere(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    reasons = []
    for load in (load_audio, load_audio_kaiser):
        with pytest.raises(AudioError) as caught:
            load(path, 16_000)
        reasons.append(caught.value.reason)
    assert reasons[0] == reasons[1]
