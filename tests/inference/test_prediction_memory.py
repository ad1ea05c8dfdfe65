"""Long recordings: predicted in memory that does not grow with them, to the scores of the whole at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus_support import voice
from model_support import small_model

import raydec.inference.spectrograms
from raydec.inference.prediction import Predictor
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


def test_the_chunks_of_a_long_recording_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(1, 130.0, 22_050), 22_050)
    predictor = Predictor(small_model(), torch.device("cpu"))
    found = predictor.predict(tmp_path / "a.wav")
    monkeypatch.setattr(raydec.inference.spectrograms, "_LONG_S", 1e9)
    whole = predictor.predict(tmp_path / "a.wav")
    assert dict(found) == pytest.approx(dict(whole), abs=1e-5) and found.cluster == whole.cluster
