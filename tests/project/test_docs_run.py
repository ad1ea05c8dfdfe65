"""The commands of the documents and the notebook run unchanged, on a small corpus with a small network."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import soundfile
import yaml
from corpus_support import voice
from docs_support import DOCUMENTS, ROOT, SMALL, blocks, run_block, write_material

from raydec.console.terminal import run_entry_point
from raydec.predict import main as predict_main

RUN = blocks()
NETWORK = "https://example.org/"
# Reads a file of the working directory instead of the network's, and decodes it with ffmpeg's own libraries.
FFMPEG = """
import sys
import av

asked = dict(zip(sys.argv[1:-1:2], sys.argv[2:-1:2], strict=True))
assert asked.keys() == {"-loglevel", "-i", "-f"} and sys.argv[-1] == "-", sys.argv
source = av.open(asked["-i"].removeprefix("NETWORK"))
with av.open(sys.stdout.buffer, "w", format=asked["-f"]) as written:
    stream = written.add_stream("pcm_s16le", rate=source.streams.audio[0].rate)
    for frame in source.decode(audio=0):
        written.mux(stream.encode(frame))
    written.mux(stream.encode(None))
"""


def has_verbs(commands: list[str]) -> bool:
    return any(command.startswith("python -m raydec.") for command in commands)


def is_pipe(command: str) -> bool:
    return command.startswith("ffmpeg ") and " | python -m raydec." in command


@pytest.mark.parametrize("block", RUN)
def test_commands_of_other_programs_are_known_to_work(block: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    contributing = ROOT / "CONTRIBUTING.md"
    for command in RUN[block]:
        if has_verbs([command]) or is_pipe(command) or block.startswith(contributing.name):
            continue
        words = shlex.split(command, comments=True)
        assert words == ["pytest"] or words[:2] == ["pip", "install"], (
            f"{block}: mark it, or run it: {command}"
        )
        if words[0] == "pip":
            assert words[2] == "." or words[2].removeprefix(".[").removesuffix("]") in extras, command


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's five commands were run."""
    place = tmp_path_factory.mktemp("newcomer")
    write_material(place)
    (five,) = [name for name, commands in RUN.items() if name.startswith("README") and len(commands) == 5]
    run_block(RUN[five], place)
    assert (place / "runs" / "mine" / "report.html").stat().st_size > 1_000_000
    return place


@pytest.mark.parametrize("block", [name for name, commands in RUN.items() if has_verbs(commands)])
def test_commands_run_as_they_stand(block: str, finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "newcomer"
    shutil.copytree(finished, place)
    run_block(RUN[block], place)


def write_ffmpeg(folder: Path) -> None:
    """A program of this name that needs no network: the real one where there is one."""
    folder.mkdir()
    real = shutil.which("ffmpeg")
    if real is not None:
        text = f'#!/bin/bash\nexec {real} "${{@#{NETWORK}}}"\n'
    else:
        pytest.importorskip("av", reason="PyAV is in the ffmpeg extra")
        text = f"#!{sys.executable}{FFMPEG.replace('NETWORK', NETWORK)}"
    (folder / "ffmpeg").write_text(text)
    (folder / "ffmpeg").chmod(0o755)


def test_a_pipe_of_the_documents_gives_the_rows_of_the_file(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = [command for commands in RUN.values() for command in commands if is_pipe(command)]
    monkeypatch.chdir(finished)
    write_ffmpeg(tmp_path / "bin")
    soundfile.write("radio.mp3", voice(5, 9.0, 44_100), 44_100)
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    piped = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert piped.returncode == 0, piped.stderr
    options = command.partition(" - ")[2].partition(" - ")[2].split()
    assert options[:1] == ["--windows"]
    whole = ["runs/mine/model", "radio.mp3", "--out", str(tmp_path / "rows.csv"), *options]
    assert run_entry_point(predict_main, whole) == 0
    rows, wanted = (
        list(csv.DictReader(text.splitlines()))
        for text in (piped.stdout, (tmp_path / "rows.csv").read_text())
    )
    assert len(rows) == len(wanted) == 6
    for row, expected in zip(rows, wanted, strict=True):
        assert [row[name] for name in ("start", "end")] == [expected[name] for name in ("start", "end")]
        for name in ("arousal", "dominance", "valence"):
            # The pipe carries 16 bits.
            assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-3)


def test_python_of_the_documents_runs(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "newcomer")
    monkeypatch.chdir(tmp_path / "newcomer")
    shutil.copy("recordings/a.wav", "recording.wav")
    for document in DOCUMENTS:
        if document.name == "emotion-classes.md":
            # Its model is made by its own commands.
            for commands in (RUN[name] for name in RUN if name.startswith(document.name)):
                run_block(commands, Path.cwd())
        for text in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
            exec(compile(text, document.name, "exec"), {})


def test_the_notebook_runs_from_the_first_cell_to_the_last(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    small = [f"data.store={finished / 'stores' / 'mine'}", *SMALL]
    settings = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in small)}
    assert '"training.epochs": 3}' in cells[0]
    cells[0] = cells[0].replace('"training.epochs": 3}', f"**{settings!r}}}")
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert Path(str(names["report"])).exists()


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is in the docs extra")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is in the docs extra")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    for name in (
        "raydec.inference.prediction.load",
        "raydec.api.train",
        "raydec.errors.UserError",
    ):
        assert f'id="{name}"' in page, name
    assert (tmp_path / "site" / "report-light.png").exists()
