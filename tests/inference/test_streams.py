"""Streams and pipes: the rows of a file, while it comes, in memory that does not grow."""

from __future__ import annotations

import csv
import io
import itertools
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus_support import voice
from model_support import small_model

from raydec.errors import UserError
from raydec.inference.pipe import read_wav_stream
from raydec.inference.prediction import Predictor, load
from raydec.inference.rows import RowOptions, predict_files
from raydec.inference.spectrograms import windows_of
from raydec.model.directory import save_model

CPU = torch.device("cpu")


def in_blocks(samples: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    while len(samples):
        count = int(random.integers(1, 9000))
        yield samples[:count]
        samples = samples[count:]


def window_bounds(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """First and one past the last sample of each window, from the length of the whole."""
    num_windows = 1 + max(num_samples - window, 0) // hop
    rest = num_samples - ((num_windows - 1) * hop + window)
    num_windows += rest * 2 >= hop
    begins = range(0, num_windows * hop, hop)
    return [(begin, begin + window) for begin in begins[:-1]] + [(begins[-1], num_samples)]


def bounds(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """The same by the windows that are given."""
    windows = windows_of([np.zeros(num_samples, np.float32)], window, hop)
    return [(place, place + len(part)) for place, part in windows]


def test_windows_of_blocks_are_the_windows_of_the_whole() -> None:
    random = np.random.default_rng(0)
    for _ in range(500):
        window = int(random.integers(1, 30))
        hop, length = int(random.integers(1, window + 1)), int(random.integers(1, 200))
        samples = np.arange(length, dtype=np.float32)
        blocks = np.split(samples, sorted(random.integers(0, length + 1, size=5)))
        found = list(windows_of(blocks, window, hop))
        assert [(place, place + len(part)) for place, part in found] == window_bounds(length, window, hop)
        assert all(np.array_equal(part, samples[place : place + len(part)]) for place, part in found)


def test_overlapping_windows_begin_every_hop_and_leave_nothing_out() -> None:
    assert bounds(100, 40, 10) == [(10 * i, 10 * i + 40) for i in range(7)]
    assert bounds(104, 40, 10) == [(10 * i, 10 * i + 40) for i in range(6)] + [(60, 104)]
    assert bounds(105, 40, 10) == [(10 * i, 10 * i + 40) for i in range(7)] + [(70, 105)]
    assert bounds(30, 40, 10) == [(0, 30)]


def test_windows_follow_each_other_and_a_short_rest_joins_the_last() -> None:
    assert bounds(100, 30, 30) == [(0, 30), (30, 60), (60, 100)]
    assert bounds(105, 30, 30) == [(0, 30), (30, 60), (60, 90), (90, 105)]
    assert bounds(90, 30, 30) == [(0, 30), (30, 60), (60, 90)]
    for length in (1, 14, 15, 29, 30):
        assert bounds(length, 30, 30) == [(0, length)]
    for length, window in itertools.product(range(1, 60), range(1, 20)):
        found = bounds(length, window, window)
        assert found[0][0] == 0 and found[-1][1] == length
        assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
        assert all(2 * (stop - start) >= window for start, stop in found) or len(found) == 1


def test_a_window_is_given_half_a_hop_after_its_end() -> None:
    windows = windows_of(np.split(np.zeros(100, np.float32), 100), 40, 10)
    given = []
    # The block that completes a window's half hop is the one that brings it.
    blocks_used = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal blocks_used
        for _ in range(100):
            blocks_used += 1
            yield np.zeros(1, np.float32)

    for place, _ in windows_of(counted(), 40, 10):
        given.append((place, blocks_used))
    assert given[:3] == [(0, 45), (10, 55), (20, 65)] and len(given) == len(list(windows))


@pytest.mark.parametrize("kind", ["same rate", "stereo at 44.1 kHz", "the published resampler", "opposite"])
@pytest.mark.parametrize("hop_s", [None, 0.4])
def test_a_stream_gives_what_its_file_does(tmp_path: Path, kind: str, hop_s: float | None) -> None:
    rate = 16_000 if kind == "same rate" else 44_100
    samples = voice(1, 4.3, rate)
    if kind != "same rate":
        other = -samples if kind == "opposite" else voice(2, 4.3, rate)
        samples = np.stack([samples, other], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    resampler = "kaiser" if kind == "the published resampler" else "soxr"
    predictor = Predictor(small_model(resampler=resampler), CPU)
    options = RowOptions(window_s=1.0, hop_s=hop_s)
    rows = predict_files(predictor, [str(tmp_path / "a.wav")], options).to_pylist()
    found = list(predictor.stream(in_blocks(samples, 3), rate, window_s=1.0, hop_s=hop_s))
    assert len(found) == len(rows) == (4 if hop_s is None else 9)
    for window, row in zip(found, rows, strict=True):
        assert (window.start, window.end, window.cluster) == (row["start"], row["end"], row["cluster"])
        assert dict(window) == pytest.approx({name: row[name] for name in window}, abs=1e-5)


def test_a_window_depends_on_nothing_outside_it() -> None:
    predictor = Predictor(small_model(), CPU)
    quiet = voice(1, 2.0)
    loud = np.concatenate([quiet[:16_000], 20 * quiet[16_000:]])
    first, second = (next(predictor.stream([samples], 16_000, window_s=1.0)) for samples in (quiet, loud))
    assert dict(first) == dict(second)


def test_silence_in_a_stream_is_a_window_without_scores() -> None:
    predictor = Predictor(small_model(), CPU)
    samples = np.concatenate([voice(1, 1.0), np.zeros(16_000, np.float32), voice(2, 1.0)])
    windows = list(predictor.stream(in_blocks(samples, 1), 16_000, window_s=1.0))
    assert [bool(window) for window in windows] == [True, False, True]
    assert windows[1].error == "silent: every sample is zero"


@pytest.mark.parametrize(
    ("blocks", "settings", "message"),
    [
        ([np.full(100, np.nan, np.float32)], {}, "the stream: 100 of 100 samples are NaN"),
        ([np.zeros((9, 2)), np.zeros((9, 1))], {}, "changes from 2 to 1 channels"),
        ([np.zeros(9)], {"sample_rate": 7}, "a sample rate of 7 Hz is outside"),
        (
            [np.zeros(9)],
            {"window_s": 1.0, "hop_s": 2.0},
            "hop_s=2.0 must be above 0 and at most window_s=1.0",
        ),
    ],
)
def test_mistakes_in_streams_say_so(
    blocks: list[np.ndarray], settings: dict[str, float], message: str
) -> None:
    predictor = Predictor(small_model(), CPU)
    with pytest.raises(UserError, match=message):
        list(predictor.stream(blocks, **{"sample_rate": 44_100, **settings}))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
@pytest.mark.parametrize("length", ["known", "unknown", "zero"])
def test_wav_streams_hold_what_soundfile_reads(subtype: str, form: str, length: str) -> None:
    samples = np.stack([voice(1, 0.7), voice(2, 0.7)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, subtype=subtype, format=form)
    content = bytearray(file.getvalue())
    expected, _ = soundfile.read(io.BytesIO(bytes(content)), dtype="float32")
    place = content.index(b"data")
    if length != "known":
        content[place + 4 : place + 8] = struct.pack("<I", 0 if length == "zero" else 0xFFFFFFFF)
        # A chunk that ffmpeg writes, of odd length.
        content[place:place] = b"LIST\x05\0\0\0abcde\0"
    else:
        content += b"LIST\x04\0\0\0abcd"
    rate, blocks = read_wav_stream(io.BytesIO(bytes(content)))
    assert rate == 16_000
    np.testing.assert_allclose(np.concatenate(list(blocks)), expected, atol=1e-7)


@pytest.mark.parametrize("content", [b"", b"fLaC" + bytes(100), b"RIFF\xff\xff\xff\xffWAVE", b"RIFF"])
def test_a_pipe_without_wav_says_what_to_send(content: bytes) -> None:
    with pytest.raises(UserError, match="send WAV, as ffmpeg does with -f wav -"):
        read_wav_stream(io.BytesIO(content))


def test_rows_appear_while_the_pipe_runs_and_memory_does_not_grow(tmp_path: Path) -> None:
    """Five minutes of stereo through a real pipe, as fast as it is read: the child's memory is watched."""
    save_model(small_model(), tmp_path / "model")
    second = np.stack([voice(1, 1.0, 44_100), voice(2, 1.0, 44_100)], axis=1)
    header = io.BytesIO()
    soundfile.write(header, second, 44_100, format="WAV", subtype="PCM_16")
    content = header.getvalue()
    place = content.index(b"data") + 4
    start = content[:place] + b"\xff\xff\xff\xff"
    audio = content[place + 4 :]
    command = [sys.executable, "-m", "raydec.predict", str(tmp_path / "model"), "-", "--windows", "4"]
    child = subprocess.Popen([*command, "--hop", "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(start)
    for _ in range(8):
        child.stdin.write(audio)
    child.stdin.flush()
    assert child.stdout.readline().startswith(b"file,start,end,arousal")
    assert child.stdout.readline().startswith(b"-,0.0,4.0,")
    early = resident_mib(child.pid)
    for _ in range(292):
        child.stdin.write(audio)
    late = resident_mib(child.pid)
    child.stdin.close()
    rest = child.stdout.read()
    assert child.wait(timeout=60) == 0 and late - early < 30
    rows = list(csv.reader(rest.decode().splitlines()))
    assert len(rows) == 148 and rows[-1][1:3] == ["296.0", "300.0"]
    # As the file's.
    soundfile.write(tmp_path / "a.wav", np.concatenate([second] * 16), 44_100, subtype="PCM_16")
    options = RowOptions(window_s=4.0, hop_s=2.0)
    table = predict_files(load(tmp_path / "model", "cpu"), [str(tmp_path / "a.wav")], options).to_pylist()
    for row, expected in zip(rows[:5], table[1:6], strict=True):
        assert [float(cell) for cell in row[1:6]] == pytest.approx(
            [expected[name] for name in ("start", "end", "arousal", "valence", "dominance")], abs=1e-5
        )


def resident_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
