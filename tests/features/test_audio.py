"""Decoding: every format, every rate, and every way a file can be bad."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_support import voice

from raydec.errors import AudioError
from raydec.features.audio import load_audio, measure_audio, prepare_waveform

RATE = 16_000


def reason(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    assert caught.value.file == str(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    length = min(len(first), len(second))
    return float(np.corrcoef(first[:length], second[:length])[0, 1])


@pytest.mark.parametrize(
    ("name", "arguments", "tolerance"),
    [
        ("a.wav", {"subtype": "PCM_U8"}, 1e-2),
        ("a.wav", {"subtype": "PCM_16"}, 1e-4),
        ("a.wav", {"subtype": "PCM_24"}, 1e-6),
        ("a.wav", {"subtype": "PCM_32"}, 1e-6),
        ("a.wav", {"subtype": "FLOAT"}, 0),
        ("a.wav", {"subtype": "DOUBLE"}, 0),
        ("a.wav", {"subtype": "ULAW"}, 5e-2),
        ("a.wav", {"subtype": "ALAW"}, 5e-2),
        ("a.wav", {"subtype": "IMA_ADPCM"}, 0.25),
        ("a.wav", {"subtype": "PCM_16", "format": "WAVEX"}, 1e-4),
        ("a.wav", {"subtype": "PCM_16", "format": "RF64"}, 1e-4),
        ("a.flac", {"subtype": "PCM_24"}, 1e-6),
        ("ü b,c.WAV", {"subtype": "PCM_16", "format": "WAV"}, 1e-4),
    ],
)
def test_lossless_and_companded_formats_give_the_samples_back(
    tmp_path: Path, name: str, arguments: dict[str, str], tolerance: float
) -> None:
    samples = voice(0, 0.5)
    soundfile.write(tmp_path / name, samples, RATE, **arguments)
    decoded = measure_audio(tmp_path / name)
    assert decoded.samples().dtype == np.float32
    assert decoded.warnings == ()
    np.testing.assert_allclose(decoded.samples()[: len(samples)], samples, atol=tolerance, rtol=0)
    assert abs(len(decoded.samples()) - len(samples)) < 1024  # ADPCM fills its last block


@pytest.mark.parametrize(("name", "format"), [("a.ogg", "OGG"), ("a.mp3", "MP3"), ("mp3-inside.wav", "MP3")])
def test_lossy_formats_are_recognised_by_content(tmp_path: Path, name: str, format: str) -> None:
    samples = voice(0, 1.0)
    soundfile.write(tmp_path / name, samples, RATE, format=format)
    decoded = measure_audio(tmp_path / name)
    assert decoded.warnings == ()
    assert abs(len(decoded.samples()) - len(samples)) <= 1152
    assert correlation(decoded.samples(), samples) > 0.95


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000])
def test_resampling_keeps_tones_below_both_limits(tmp_path: Path, rate: int) -> None:
    tone_hz = 1_000
    tone = 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(2 * rate) / rate)
    soundfile.write(tmp_path / "tone.wav", tone, rate, subtype="FLOAT")
    samples = load_audio(tmp_path / "tone.wav")
    assert abs(len(samples) - 2 * RATE) <= 1
    expected = 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(len(samples)) / RATE)
    middle = slice(RATE // 2, -RATE // 2)
    np.testing.assert_allclose(samples[middle], expected[middle], atol=1e-4)


def test_resampling_removes_what_would_alias(tmp_path: Path) -> None:
    high = 0.5 * np.sin(2 * np.pi * 12_000 * np.arange(96_000) / 48_000)
    low = 0.5 * np.sin(2 * np.pi * 500 * np.arange(96_000) / 48_000)
    soundfile.write(tmp_path / "a.wav", high + low, 48_000, subtype="FLOAT")
    spectrum = np.abs(np.fft.rfft(load_audio(tmp_path / "a.wav")[8000:24000]))
    assert spectrum[4000] < 1e-4 * spectrum[500]  # 12 kHz would fold to 4 kHz


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = voice(0, 0.5), voice(1, 0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-7)
    six = np.stack([left] + [np.zeros_like(left)] * 5, axis=1)
    soundfile.write(tmp_path / "b.wav", six, RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "b.wav"), left / 6, atol=1e-7)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_channels_that_cancel_fall_back_to_the_louder_one_with_a_warning(
    tmp_path: Path, subtype: str
) -> None:
    left = voice(0, 0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), RATE, subtype=subtype)
    decoded = measure_audio(tmp_path / "a.wav")
    assert abs(correlation(decoded.samples(), left)) > 0.999
    assert decoded.warnings == ("the channels cancel each other; the louder one was used alone",)
    only_half = np.stack([left, np.zeros_like(left)], axis=1)
    soundfile.write(tmp_path / "b.wav", only_half, RATE, subtype=subtype)
    assert measure_audio(tmp_path / "b.wav").warnings == ()


def test_stereo_44100_24_bit_and_8_khz_mu_law(tmp_path: Path) -> None:
    wide = np.stack([voice(0, 1.0, 44_100)] * 2, axis=1)
    soundfile.write(tmp_path / "a.wav", wide, 44_100, subtype="PCM_24")
    assert len(load_audio(tmp_path / "a.wav")) == RATE
    soundfile.write(tmp_path / "b.wav", voice(0, 1.0, 8_000), 8_000, subtype="ULAW")
    assert len(load_audio(tmp_path / "b.wav")) == RATE


@pytest.mark.parametrize("seconds", [0.05, 300.0])
def test_very_short_and_very_long_files_decode_whole(tmp_path: Path, seconds: float) -> None:
    soundfile.write(tmp_path / "a.flac", voice(0, min(seconds, 1.0)), RATE)
    if seconds > 1:
        soundfile.write(tmp_path / "a.flac", np.tile(voice(0, 1.0), int(seconds)), RATE)
    assert len(load_audio(tmp_path / "a.flac")) == int(seconds * RATE)


def test_files_that_are_not_audio(tmp_path: Path) -> None:
    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 128044\n"
    assert reason(file("lfs.wav", pointer)).startswith("a Git LFS pointer")
    assert reason(file("empty.wav", b"")) == "the file is empty (0 bytes)"
    assert reason(file("garbage.wav", bytes(range(256)) * 40)).startswith("cannot be decoded: ")
    assert reason(file("x.raw", b"\0" * 100)).startswith("headerless raw samples")
    assert reason(tmp_path / "absent.wav") == "the file does not exist"
    (tmp_path / "folder.wav").mkdir()
    assert reason(tmp_path / "folder.wav") == "not a regular file"
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason(tmp_path / "pipe.wav") == "not a regular file"
    soundfile.write(tmp_path / "no-frames.wav", np.zeros(0), RATE)
    assert reason(tmp_path / "no-frames.wav") == "contains no samples"


@pytest.mark.parametrize("length", [4, 11, 12, 20, 36, 43])
def test_truncated_headers(tmp_path: Path, length: int) -> None:
    soundfile.write(tmp_path / "a.wav", voice(0, 0.5), RATE)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:length])
    assert reason(tmp_path / "a.wav")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("format", ["WAV", "FLAC", "MP3"])
def test_data_cut_short_is_kept_with_a_warning(tmp_path: Path, format: str, share: float) -> None:
    path = tmp_path / "a.bin"
    soundfile.write(path, voice(0, 4.0), RATE, format=format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    decoded = measure_audio(path)
    assert share - 0.1 < len(decoded.samples()) / (4 * RATE) < share + 0.1
    (warning,) = decoded.warnings
    assert warning.startswith("cut short: ")


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_streamed_wav_without_a_length_is_no_cut(tmp_path: Path, length: int) -> None:
    soundfile.write(tmp_path / "a.wav", voice(0, 0.5), RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", length)
    (tmp_path / "a.wav").write_bytes(content)
    decoded = measure_audio(tmp_path / "a.wav")
    assert len(decoded.samples()) == RATE // 2
    assert decoded.warnings == ()


def test_odd_chunks_around_the_data_are_no_cut(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(0, 0.5), RATE)
    content = (tmp_path / "a.wav").read_bytes()
    place = content.index(b"data")
    filler = b"FLLR" + struct.pack("<I", 4043) + b"\0" * 4044
    (tmp_path / "a.wav").write_bytes(content[:place] + filler + content[place:] + b"LIST\x04\0\0\0INFO")
    decoded = measure_audio(tmp_path / "a.wav")
    assert len(decoded.samples()) == RATE // 2
    assert decoded.warnings == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    samples = voice(0, 0.5)
    samples[[100, 200]] = bad
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "2 of 8000 samples are NaN or infinite"


def test_impossible_peaks_are_damage_and_unscaled_integers_are_not(tmp_path: Path) -> None:
    samples = voice(0, 0.5)
    soundfile.write(tmp_path / "int.wav", samples * 2.0**31, RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "int.wav") / 2.0**31, samples, rtol=1e-6)
    samples[50] = 1e29
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "an impossible peak of 1e+29; the file is damaged"


@pytest.mark.parametrize(("channels", "rate"), [(1, RATE), (2, 44_100)])
def test_silence(tmp_path: Path, channels: int, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((rate, channels)), rate)
    assert reason(tmp_path / "a.wav") == "silent: every sample is zero"


def test_damaged_rates(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(0, 0.5), 10)
    assert reason(tmp_path / "a.wav").startswith("a sample rate of 10 Hz is outside 1000 to 1000000 Hz")
    soundfile.write(tmp_path / "b.wav", np.array([0.5]), 48_000)
    assert "too few to resample" in reason(tmp_path / "b.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(0, 0.5), RATE)
    (tmp_path / "a.wav").chmod(0)
    assert reason(tmp_path / "a.wav") == "cannot be read: Permission denied"


def test_waveforms_in_memory_are_treated_like_files(tmp_path: Path) -> None:
    stereo = np.stack([voice(0, 0.5, 44_100), voice(1, 0.5, 44_100)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44_100, subtype="FLOAT")
    np.testing.assert_array_equal(prepare_waveform(stereo, 44_100), load_audio(tmp_path / "a.wav"))
    integers = (voice(0, 0.5) * 32767).astype(np.int16)
    np.testing.assert_array_equal(prepare_waveform(integers, RATE), integers.astype(np.float32))
    with pytest.raises(AudioError, match="microphone: contains no samples"):
        prepare_waveform(np.zeros(0), RATE, name="microphone")


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "silent")))
    assert (error.file, error.reason, str(error)) == ("a.wav", "silent", "a.wav: silent")
