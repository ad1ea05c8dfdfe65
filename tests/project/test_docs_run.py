"""The commands of the documents and the notebook run unchanged, on a small corpus with a small network."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import yaml
from corpus_support import voice
from report_support import TINY
from stores import write_ratings

from raydec.console.terminal import run_entry_point

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- [^>]*-->\n)?```bash\n(.*?)```", re.DOTALL)
# Added to every command, so that it takes seconds.
SMALL = (*TINY, "training.epochs=1")
ELSEWHERE = {"/data/MSP-Podcast": "msp", "/data/podcasts": "podcasts"}


def blocks() -> Iterator[tuple[str, list[str]]]:
    """Name and commands of every bash block, except those that are marked as not run."""
    for document in DOCUMENTS:
        for number, (mark, text) in enumerate(BLOCK.findall(document.read_text(encoding="utf-8"))):
            if not re.search(r"not run by the tests|run by the \w+ tests only", mark):
                yield f"{document.name}-{number}", text.replace("\\\n", " ").splitlines()


RUN = dict(blocks())


def has_verbs(commands: list[str]) -> bool:
    return any(command.startswith("python -m raydec.") for command in commands)


@pytest.mark.parametrize("block", RUN)
def test_commands_of_other_programs_are_known_to_work(block: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    contributing = ROOT / "CONTRIBUTING.md"
    for command in RUN[block]:
        if command.startswith("python -m raydec.") or block.startswith(contributing.name):
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


def write_material(place: Path) -> None:
    """The README's corpus, the same in folds, recordings without labels, and the layout of MSP-Podcast."""
    header = "file,arousal,dominance,valence,emotion,speaker,split"
    rows, msp_rows = [], []
    for number in range(30):
        split = ("train", "validation", "test")[number % 3]
        scores = [f"{1 + (number * step) % 6}.5" for step in (1, 5, 7)]
        write_voice(place / "my_corpus" / f"{number:04d}.wav", number)
        write_voice(place / "msp" / "Audios" / f"MSP-PODCAST_{number:04d}_0001.wav", number)
        emotion = "AHNS"[number // 3 % 4]
        rows.append(",".join([f"{number:04d}.wav", *scores, emotion, f"{split}{number % 4}", split]))
        msp_split = {"train": "Train", "validation": "Development", "test": "Test1"}[split]
        msp_rows.append(f"MSP-PODCAST_{number:04d}_0001.wav,N,{','.join(scores)},{number},Male,{msp_split}")
    (place / "my_corpus" / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    shutil.copytree(place / "my_corpus", place / "my_folds")
    folds = [f"{row.rpartition(',')[0]},fold{number % 5}" for number, row in enumerate(rows)]
    (place / "my_folds" / "labels.csv").write_text("\n".join([header, *folds]) + "\n")
    labels = place / "msp" / "Labels" / "labels_consensus.csv"
    labels.parent.mkdir()
    msp_header = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
    labels.write_text("\n".join([msp_header, *msp_rows]) + "\n")
    write_ratings(place / "msp")
    for folder in ("recordings", "podcasts", "lectures", "more_speech"):
        for number in range(3):
            write_voice(place / folder / f"{number}.wav", hash_of(folder) + number)
    shutil.copy(place / "recordings" / "0.wav", place / "recordings" / "a.wav")
    shutil.copytree(place / "recordings", place / "calls")
    (place / "calls" / "list.csv").write_text(
        "file,speaker\n0.wav,anna\n1.wav,anna\n2.wav,bert\na.wav,bert\n"
    )


def hash_of(text: str) -> int:
    return sum(map(ord, text))


def write_voice(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, voice(seed, 0.6), 16_000, subtype="PCM_16")


def run_block(commands: list[str], place: Path) -> None:
    """Run a block's commands of raydec as in a shell in ``place``."""
    before = os.getcwd()
    os.chdir(place)
    try:
        for command in commands:
            words = shlex.split(command, comments=True)
            if words[:2] == ["python", "-m"]:
                run_verb(words[2].removeprefix("raydec."), [ELSEWHERE.get(word, word) for word in words[3:]])
    finally:
        os.chdir(before)


def run_verb(verb: str, arguments: list[str]) -> None:
    if verb == "export" and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("needs the onnx extra")
    if verb == "prepare" and "--verify" not in arguments:
        # A document may show several ways to make the same store.
        shutil.rmtree(arguments[1], ignore_errors=True)
    if verb == "train":
        named = [word.removeprefix("name=") for word in arguments if word.startswith("name=")]
        shutil.rmtree(Path("runs", *(named or ["demo"])), ignore_errors=True)
        # The demo corpus has tests of its own.
        defaults = (
            [] if any(word.startswith("data.store=") for word in arguments) else ["data.store=stores/mine"]
        )
        arguments = [*arguments, *defaults, *([] if named else ["name=demo"]), *SMALL]
    status = run_entry_point(importlib.import_module(f"raydec.{verb}").main, arguments)
    assert status == 0, (verb, arguments)


@pytest.mark.parametrize("block", [name for name, commands in RUN.items() if has_verbs(commands)])
def test_commands_run_as_they_stand(block: str, finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "newcomer"
    shutil.copytree(finished, place)
    run_block(RUN[block], place)


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
