"""Long recordings: predicted in memory that does not grow with them, to the scores of the whole at once."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus_support import voice
from model_support import small_model

import raydec.inference.rows
import raydec.inference.spectrograms
from raydec.inference.prediction import Predictor
from raydec.inference.rows import WHOLE_FILES, CpuClock, Spectrogram, score_spectrograms
from raydec.model.directory import save_model

LIMIT_MIB = 600
# Whole, in windows, and as a library would; prints the largest anonymous memory in MiB. The kernel's
# high-water mark counts mapped files too, of which any number of pages may be gone again at the end.
CODE = """
import sys
import threading
import time
import raydec

peaks = [0]

def watch():
    while True:
        (anonymous,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")]
        peaks[0] = max(peaks[0], int(anonymous))
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
model = raydec.load(sys.argv[1], "cpu")
assert model.predict(sys.argv[2])["arousal"]
status = __import__("raydec.cli", fromlist=["main"]).main(
    ["predict", sys.argv[1], sys.argv[2], "--windows", "60", "--workers", "0", "--out", sys.argv[3]]
)
assert status == 0
print(peaks[0] // 1024)
"""


def test_memory_stays_below_a_limit(tmp_path: Path) -> None:
    """Stereo at 44.1 kHz; decoded as a whole, ten minutes would take more than the limit."""
    minutes = 60 if os.environ.get("RAYDEC_SLOW_TESTS") == "1" else 10
    save_model(small_model(), tmp_path / "model")
    second = np.stack([voice(1, 1.0, 44_100), voice(2, 1.0, 44_100)], axis=1)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 44_100, 2, "PCM_16") as file:
        for _ in range(minutes * 60):
            file.write(second)
    arguments = [str(tmp_path / name) for name in ("model", "long.wav", "out.csv")]
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr.decode()
    assert 50 < int(done.stdout.split()[-1]) < LIMIT_MIB
    assert (tmp_path / "out.csv").read_text().count("\n") == 1 + minutes


@pytest.mark.parametrize("num_frames", [50, 199, 1000])
def test_windows_that_have_scores_leave_memory(num_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time are more spectrograms alive than the limit and the one that is being read."""
    predictor = Predictor(small_model(), torch.device("cpu"))
    size = num_frames * predictor.trained.front_end.width * 4
    limit = max(size, 10_000 * predictor.trained.front_end.width)
    monkeypatch.setattr(raydec.inference.rows, "_BYTES_IN_MEMORY", limit)
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def spectrograms() -> Iterator[Spectrogram]:
        nonlocal most
        for i in range(4 * limit // size + 3):
            frames = torch.full((num_frames, predictor.trained.front_end.width), float(i))
            alive.add(frames)
            most = max(most, len(alive))
            yield {"file": f"{i}.wav"}, frames
            del frames

    table = score_spectrograms(predictor, spectrograms(), WHOLE_FILES, CpuClock())
    assert table.num_rows == 4 * limit // size + 3
    assert 1 <= most * size <= limit + 2 * size


def test_the_chunks_of_a_long_recording_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(1, 130.0, 22_050), 22_050)
    predictor = Predictor(small_model(), torch.device("cpu"))
    found = predictor.predict(tmp_path / "a.wav")
    monkeypatch.setattr(raydec.inference.spectrograms, "_LONG_S", 1e9)
    whole = predictor.predict(tmp_path / "a.wav")
    assert dict(found) == pytest.approx(dict(whole), abs=1e-5) and found.cluster == whole.cluster
