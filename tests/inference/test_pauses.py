"""Stretches of speech, by level and by a voice activity detector: their times, and rows of predictions."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from model_support import small_model

from raydec.console.terminal import run_entry_point
from raydec.features.audio import measure_audio
from raydec.inference import voice_activity
from raydec.inference.pauses import SPEECH_FINDERS
from raydec.model.directory import save_model
from raydec.predict import main

RATE = 16_000
MARGIN_S = 0.1
SILENCE = np.zeros(RATE, np.float32)
needs_detector = pytest.mark.skipif(
    importlib.util.find_spec("silero_vad") is None, reason='needs silero-vad: pip install "raydec[vad]"'
)
FINDERS = ["energy", pytest.param("vad", marks=needs_detector)]
Segments = list[tuple[float, float]]


def recorded(speech_dir: Path, corpus: str, number: int) -> np.ndarray:
    """A recorded utterance with a peak of 0.5."""
    files = sorted(path for path in (speech_dir / corpus / "Audios").iterdir() if path.suffix != ".txt")
    samples, rate = soundfile.read(files[number * len(files) // 8], dtype="float32")
    return (soxr.resample(samples, rate, RATE) * (0.5 / np.abs(samples).max())).astype(np.float32)


def loudest_place(samples: np.ndarray, low: float, high: float) -> int:
    """The middle of the loudest 50 ms between two shares of an utterance: surely inside speech."""
    power = np.convolve(samples.astype(np.float64) ** 2, np.ones(800), "same")
    begin, end = int(low * len(samples)), int(high * len(samples))
    return begin + int(power[begin:end].argmax())


def with_silences(samples: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """An utterance, cut twice inside speech, with 1 s of silence at the cuts; where it begins, in seconds."""
    cuts = [loudest_place(samples, 0.25, 0.45), loudest_place(samples, 0.55, 0.75)]
    first, second, third = np.split(samples, cuts)
    begins = [cuts[0] / RATE, cuts[1] / RATE + 1]
    return np.concatenate([first, SILENCE, second, SILENCE, third]), begins


def segments_of(finder: str, samples: np.ndarray, folder: Path, rate: int = RATE) -> Segments:
    soundfile.write(folder / "a.wav", samples, rate, subtype="FLOAT")
    return SPEECH_FINDERS[finder](measure_audio(folder / "a.wav", rate))


def check_cuts(segments: Segments, pauses: list[float], late_s: float) -> None:
    """Whether what lies between the segments are these pauses of 1 s, less the margin on both sides."""
    assert len(segments) == len(pauses) + 1, (segments, pauses)
    for begin, (_, end), (start, _) in zip(pauses, segments[:-1], segments[1:], strict=True):
        assert end == pytest.approx(begin + MARGIN_S, abs=late_s), (segments, pauses)
        assert start == pytest.approx(begin + 1 - MARGIN_S, abs=late_s), (segments, pauses)


@pytest.mark.speech
@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("corpus", ["nemo", "emodb"])
def test_energy_cuts_inserted_silences_within_a_step(
    speech_dir: Path, tmp_path: Path, corpus: str, number: int
) -> None:
    samples, pauses = with_silences(recorded(speech_dir, corpus, number))
    # A level is the peak of 10 ms; the margin lies within 0.1 s of where the silence really begins and ends.
    check_cuts(segments_of("energy", samples, tmp_path), pauses, 0.011)


@needs_detector
@pytest.mark.speech
@pytest.mark.parametrize("number", range(8))
def test_the_detector_cuts_inserted_silences(speech_dir: Path, tmp_path: Path, number: int) -> None:
    samples, pauses = with_silences(recorded(speech_dir, "nemo", number))
    # It sees windows of 32 ms, and decides after some of them.
    check_cuts(segments_of("vad", samples, tmp_path), pauses, 0.15)


@needs_detector
@pytest.mark.speech
def test_the_detector_misses_little_of_acted_speech(speech_dir: Path, tmp_path: Path) -> None:
    """The share that docs/predict.md reports: it takes some of EmoDB's speech for noise."""
    num_right = 0
    for number in range(8):
        samples, pauses = with_silences(recorded(speech_dir, "emodb", number))
        segments = segments_of("vad", samples, tmp_path)
        if len(segments) == 3:
            check_cuts(segments, pauses, 0.15)
            num_right += 1
    assert num_right >= 6


@needs_detector
@pytest.mark.speech
@pytest.mark.parametrize("number", range(8))
def test_the_detector_cuts_pauses_that_are_full_of_noise(
    speech_dir: Path, tmp_path: Path, number: int
) -> None:
    spoken = recorded(speech_dir, "nemo", number)
    cut = loudest_place(spoken, 0.4, 0.6)
    samples = np.concatenate([spoken[:cut], SILENCE, spoken[cut:]])
    noise = np.random.default_rng(number).normal(0, 0.02, len(samples)).astype(np.float32)
    check_cuts(segments_of("vad", samples + noise, tmp_path), [cut / RATE], 0.25)


@needs_detector
@pytest.mark.speech
@pytest.mark.parametrize(
    ("times_over", "scale", "rate"), [(5, 1.0, RATE), (1, 0.001, RATE), (1, 1.0, 44_100)]
)
def test_the_detector_reads_blocks_of_any_level_and_rate_as_its_package_reads_the_whole(
    speech_dir: Path, tmp_path: Path, times_over: int, scale: float, rate: int
) -> None:
    import silero_vad

    spoken = [recorded(speech_dir, "nemo", number) for number in range(8)]
    samples = np.concatenate([part for each in spoken for part in (each, SILENCE)] * times_over)
    assert times_over == 1 or len(samples) > 120 * RATE, "too short to be decoded in blocks"
    given = samples if rate == RATE else soxr.resample(samples, RATE, rate)
    found = segments_of("vad", given * np.float32(scale), tmp_path, rate)
    wanted = silero_vad.get_speech_timestamps(
        torch.from_numpy(samples / np.abs(samples).max()),
        silero_vad.load_silero_vad(),
        min_silence_duration_ms=300,
        min_speech_duration_ms=100,
        speech_pad_ms=100,
    )
    times = [(each["start"] / RATE, each["end"] / RATE) for each in wanted]
    assert len(found) == len(times) >= 8 * times_over
    np.testing.assert_allclose(found, times, atol=0.001 if rate == RATE else 0.065)


@needs_detector
def test_importing_the_detector_leaves_torch_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "silero_vad"]:
        monkeypatch.delitem(sys.modules, name)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        voice_activity._detector.__wrapped__()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def noise(seconds: float = 3.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def test_energy_takes_noise_without_pauses_for_one_stretch(tmp_path: Path) -> None:
    assert segments_of("energy", noise(), tmp_path) == [(0.0, 3.0)]


@needs_detector
@pytest.mark.parametrize("sound", [noise(), np.cumsum(noise()), np.sin(np.arange(3 * RATE) / 6)])
def test_the_detector_finds_no_speech_in_noise(tmp_path: Path, sound: np.ndarray) -> None:
    assert segments_of("vad", sound.astype(np.float32), tmp_path) == []


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def predict(*words: str) -> int:
    return run_entry_point(main, [*words, "--workers", "0"])


@pytest.mark.speech
@pytest.mark.parametrize("finder", FINDERS)
def test_a_segment_is_predicted_as_a_file_of_its_own(
    speech_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(small_model(), "model")
    samples, _ = with_silences(recorded(speech_dir, "nemo", 2))
    segments = segments_of(finder, samples, tmp_path)
    for number, (start, end) in enumerate(segments):
        part = samples[round(start * RATE) : round(end * RATE)]
        soundfile.write(f"part{number}.wav", part, RATE, subtype="FLOAT")
    assert predict("model", "a.wav", "--out", "segments.csv", "--segments", finder) == 0
    parts = [f"part{number}.wav" for number in range(len(segments))]
    assert predict("model", *parts, "--out", "files.csv") == 0
    found, wanted = rows_of("segments.csv"), rows_of("files.csv")
    assert [(float(row["start"]), float(row["end"])) for row in found] == segments
    for ours, theirs in zip(found, wanted, strict=True):
        assert [ours[n] for n in ("arousal", "valence", "cluster")] == [
            theirs[n] for n in ("arousal", "valence", "cluster")
        ]


@needs_detector
def test_a_file_without_speech_gets_a_row_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(small_model(), "model")
    soundfile.write("noise.wav", noise(), RATE)
    assert predict("model", "noise.wav", "--out", "out.csv", "--segments", "vad") == 1
    (row,) = rows_of("out.csv")
    assert (row["file"], row["error"], row["arousal"]) == ("noise.wav", "contains no speech", "")


def test_a_missing_detector_is_one_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    save_model(small_model(), "model")
    soundfile.write("a.wav", noise(), RATE)
    assert predict("model", "a.wav", "--out", "out.csv", "--segments", "vad") == 2
    message = capsys.readouterr().err.strip()
    assert message == 'error: --segments vad needs silero-vad; install with: pip install "raydec[vad]"'
    assert not Path("out.csv").exists()
    assert predict("model", "a.wav", "--out", "out.csv", "--segments", "energy") == 0
