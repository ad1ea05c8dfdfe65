"""Recordings read in blocks: the same samples as from the whole, in memory that does not grow with them."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from corpus_support import voice

from raydec.corpus.segments import Segment
from raydec.errors import AudioError
from raydec.features import audio
from raydec.features.audio import load_audio, measure_audio
from raydec.features.kaiser import KaiserResampler, resample_kaiser

RATE = 16_000


def whole(path: Path) -> np.ndarray:
    """The same with only the libraries, all samples at once."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1, dtype=np.float32)
    return mono if rate == RATE else soxr.resample(mono, rate, RATE, quality="HQ")


def stereo(path: Path, rate: int, seconds: float = 3.0, format: str = "WAV") -> Path:
    channels = [voice(0, seconds, rate), voice(1, seconds, rate)]
    soundfile.write(path, np.stack(channels, axis=1), rate, format=format)
    return path


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_blocks_are_the_samples_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, format: str
) -> None:
    path = stereo(tmp_path / "a", rate, seconds=18.0, format=format)
    expected = whole(path)
    # An MP3's last bit depends on the number of samples asked for at a time.
    tolerance = 2e-7 if format == "MP3" else 0
    np.testing.assert_allclose(load_audio(path), expected, atol=tolerance, rtol=0)
    monkeypatch.setattr(audio, "_KEPT_S", 0.5)  # longer ones are decoded again
    recording = measure_audio(path)
    blocks = list(recording.blocks())
    assert len(blocks) > 2
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=tolerance, rtol=0)
    np.testing.assert_allclose(recording.samples(), expected, atol=tolerance, rtol=0)


def test_levels_are_those_of_the_whole(tmp_path: Path) -> None:
    path = stereo(tmp_path / "a", 44_100)
    samples, levels = whole(path), measure_audio(path).levels
    assert levels.num_samples == len(samples)
    assert (levels.lowest, levels.highest) == (samples.min(), samples.max())
    assert levels.peak == np.abs(samples).max()
    assert levels.mean == pytest.approx(samples.mean(dtype=np.float64), rel=1e-9)
    steps = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    np.testing.assert_array_equal(levels.step_peaks[: len(steps)], np.abs(steps).max(axis=1))


def test_channels_that_cancel_only_on_the_whole(tmp_path: Path) -> None:
    """One loud place at which they do not cancel is enough for all blocks, wherever it is."""
    left = voice(0, 4.0)
    cancelling = np.stack([left, -left], axis=1)
    soundfile.write(tmp_path / "a.wav", cancelling, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav"), left)
    cancelling[-100:, 1] = left[-100:]
    soundfile.write(tmp_path / "b.wav", cancelling, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "b.wav"), cancelling.mean(axis=1))


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
@pytest.mark.parametrize("block", [256, 16_384, 1_000_000])
def test_the_published_resampler_gives_the_same_in_blocks(rate: int, block: int) -> None:
    samples = np.random.default_rng(0).standard_normal(rate * 4 + 13).astype(np.float32)
    stream = KaiserResampler(rate, RATE)
    parts = [stream.resample_chunk(samples[i : i + block]) for i in range(0, len(samples), block)]
    parts.append(stream.resample_chunk(np.empty(0, np.float32), last=True))
    np.testing.assert_array_equal(np.concatenate(parts), resample_kaiser(samples, rate, RATE))


@pytest.mark.parametrize("format", ["WAV", "FLAC", "AIFF", "W64", "CAF", "OGG"])
@pytest.mark.parametrize("segment", [Segment(0.0, 1.25), Segment(0.7134, 2.001), Segment(2.5)])
def test_a_segment_is_what_a_file_of_that_part_would_be(
    tmp_path: Path, format: str, segment: Segment
) -> None:
    path = stereo(tmp_path / "a", 44_100, format=format)
    samples, rate = soundfile.read(path, dtype="float32")
    end = None if segment.end_s is None else round(segment.end_s * rate)
    soundfile.write(tmp_path / "cut.wav", samples[round(segment.start_s * rate) : end], rate, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(path, segment=segment), load_audio(tmp_path / "cut.wav"))
    kaiser = measure_audio(path, RATE, segment, resampler=KaiserResampler)
    cut = measure_audio(tmp_path / "cut.wav", RATE, resampler=KaiserResampler)
    np.testing.assert_array_equal(kaiser.samples(), cut.samples())


def test_a_segment_of_an_mp3_is_exact_to_what_nobody_hears(tmp_path: Path) -> None:
    path = stereo(tmp_path / "a.mp3", RATE, 10.0, format="MP3")
    expected = whole(path)[round(4.321 * RATE) : 6 * RATE]
    np.testing.assert_allclose(load_audio(path, segment=Segment(4.321, 6.0)), expected, atol=1e-6)


def test_segments_that_the_recording_does_not_have(tmp_path: Path) -> None:
    path = stereo(tmp_path / "a.wav", RATE, 2.0)
    with pytest.raises(AudioError, match=r"the segment starts at 3\.5 s, after the end of the recording"):
        load_audio(path, segment=Segment(3.5, 4.0))
    recording = measure_audio(path, segment=Segment(1.5, 2.5))
    assert recording.levels.num_samples == RATE // 2
    assert recording.warnings == ("the segment ends at 2.5 s, the recording at 2.00 s",)
    assert measure_audio(path, segment=Segment(1.5, 2.02)).warnings == ()


_LIMITED = """
import re, resource, sys
import numpy as np
from raydec.features.audio import measure_audio
used_kib = int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
limit = (used_kib << 10) + (48 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
recording = measure_audio(sys.argv[1])
total = sum(float(np.square(block, dtype=np.float64).sum()) for block in recording.blocks())
print(recording.levels.num_samples, recording.levels.peak, total)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_long_recording_is_read_in_48_mib(tmp_path: Path) -> None:
    """Its samples alone would be 121 MiB in float32, and so for any length."""
    rate, seconds = 44_100, 360
    path = stereo(tmp_path / "a.wav", rate, 2.0)
    content = bytearray(path.read_bytes())
    size = rate * seconds * 4
    content[4:8], content[40:44] = struct.pack("<I", size + 36), struct.pack("<I", size)
    path.write_bytes(content)
    with path.open("r+b") as file:  # the rest is silence, which takes no room on the disk
        file.truncate(44 + size)
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    num_samples, peak, total = map(float, done.stdout.split())
    head = load_audio(path, segment=Segment(0.0, 2.0))
    assert num_samples == seconds * RATE
    assert peak == pytest.approx(np.abs(head).max(), rel=1e-6)
    assert total == pytest.approx(np.square(head, dtype=np.float64).sum(), rel=1e-3)
