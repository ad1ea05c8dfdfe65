"""Damaged MP3: the library's own lines never reach the terminal; a warning with the file's name does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_support import voice

from raydec.features.audio import measure_audio
from raydec.features.mpeg_noise import MpegNoise

DAMAGE = {"middle": (0.4, 0.6), "many places": (0.1, 0.9), "end": (0.9, 1.0)}


def damaged_mp3(path: Path, place: str) -> Path:
    soundfile.write(path, voice(3, 4.0), 16_000, format="MP3")
    data = bytearray(path.read_bytes())
    first, last = (round(share * len(data)) for share in DAMAGE[place])
    rng = np.random.default_rng(0)
    for number in rng.integers(first, last, size=(last - first) // 3):
        data[number] = int(rng.integers(256))
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("place", DAMAGE)
def test_damaged_mp3_is_decoded_without_a_word_and_with_a_warning(place: str, tmp_path: Path) -> None:
    path = damaged_mp3(tmp_path / "damaged.mp3", place)
    code = f"""
import soundfile
sound = soundfile.SoundFile({str(path)!r})
try:
    sound.read()
except soundfile.LibsndfileError:
    pass
"""
    loud = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    code = f"""
from raydec.features.audio import measure_audio
from raydec.errors import AudioError
try:
    print("\\n".join(measure_audio({str(path)!r}).warnings))
except AudioError as error:
    print(error)
"""
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
    if "mpg123" in loud or "resync" in loud:
        assert quiet.stdout.strip(), loud


def test_every_damaged_file_has_a_warning(tmp_path: Path) -> None:
    for place in DAMAGE:
        assert measure_audio(damaged_mp3(tmp_path / f"{place}.mp3", place)).warnings, place


def test_other_lines_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    noise = MpegNoise(True)
    with noise.silenced():
        os.write(2, b"[src/libmpg123/layer3.c:1] error: bad\nsomething else\n")
    assert noise.was_heard and capfd.readouterr().err == "something else\n"
    unneeded = MpegNoise(False)
    with unneeded.silenced():
        os.write(2, b"libmpg123 speaks\n")
    assert not unneeded.was_heard and capfd.readouterr().err == "libmpg123 speaks\n"
