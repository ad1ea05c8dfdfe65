"""``predict`` on a disk that fills up: one line, no rows lost, and the same command finishes afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from corpus_support import voice
from model_support import small_model
from test_predict_command import rows_of

import raydec.inference.work
from raydec.console.terminal import run_entry_point
from raydec.model.directory import save_model
from raydec.predict import main as predict_main


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and two recordings of three seconds, each a part of the rows of its own."""
    monkeypatch.setattr(raydec.inference.work, "_FILES_PER_PART", 1)
    save_model(small_model(), tmp_path / "model")
    (tmp_path / "in").mkdir()
    for number in range(2):
        soundfile.write(tmp_path / "in" / f"{number}.wav", voice(number, 3.0), 16_000)
    return tmp_path


def predict(folder: Path, *arguments: object) -> int:
    return run_entry_point(predict_main, [str(a) for a in (folder / "model", folder / "in", *arguments)])


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves a number of bytes free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - leave)
    return filler


@pytest.mark.parametrize("options", [[], ["--windows", "0.2"], ["--windows", "0.2", "--hop", "0.1"]])
@pytest.mark.parametrize("leave", [0, 16384])
def test_a_full_disk_is_one_line_and_the_same_command_finishes(
    recordings: Path, disk: Path, options: list[str], leave: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = disk / "out.csv"
    filler = fill(disk, leave)
    status = predict(recordings, "--out", out, *options)
    message = capsys.readouterr().err
    if status == 0:  # everything fitted into what was left
        assert leave and not options
        return
    assert status == 2 and "Traceback" not in message
    errors = [line for line in message.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and str(disk) in errors[0] and "o space left" in errors[0]
    filler.unlink()
    assert predict(recordings, "--out", out, *options) == 0
    assert predict(recordings, "--out", recordings / "ample.csv", *options) == 0
    assert rows_of(str(out)) == rows_of(str(recordings / "ample.csv"))


def test_a_pipe_to_a_full_disk_ends_in_one_line(recordings: Path, disk: Path) -> None:
    fill(disk, 0)
    command = [sys.executable, "-m", "raydec.predict", recordings / "model", "-", "--windows", "0.2"]
    with open(recordings / "in" / "0.wav", "rb") as audio:
        done = subprocess.run(
            [*command, "--out", disk / "rows.csv"], stdin=audio, capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "o space left" in done.stderr and str(disk) in done.stderr


@pytest.mark.parametrize("arguments", [["-"], ["FOLDER", "--out", "OUT"]])
def test_a_full_disk_behind_standard_output_is_one_line(recordings: Path, arguments: list[str]) -> None:
    named = {"FOLDER": recordings / "in", "OUT": recordings / "rows.csv"}
    paths = [named.get(argument, argument) for argument in arguments]
    with open(recordings / "in" / "0.wav", "rb") as audio, open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "raydec.predict", recordings / "model", *paths],
            stdin=audio,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "error: no space left for standard output; free some and run the same command again\n"
    )
