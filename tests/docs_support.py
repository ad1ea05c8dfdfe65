"""The commands of the documents, what they work on, and how tests run them: unchanged, but small."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import soundfile
from corpus_support import voice
from report_support import TINY
from stores import write_ratings

from raydec.console.terminal import run_entry_point
from raydec.corpus.demo import write_demo_corpus

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(<!-- [^>]*-->\n)?```bash\n(.*?)```", re.DOTALL)
_NOT_HERE = re.compile(r"not run by the tests|run by the \w+ tests only")
# Added to every command, so that it takes seconds.
SMALL = (*TINY, "training.epochs=1")
_ELSEWHERE = {
    "/data/MSP-Podcast": "msp",
    "/data/podcasts": "podcasts",
    "data.store=STORE": "data.store=stores/mine",
}


def blocks(mark: str | None = None) -> dict[str, list[str]]:
    """Commands of the bash blocks whose mark has these words, by name; None: those that any machine runs."""
    found = {}
    for document in DOCUMENTS:
        for number, (comment, text) in enumerate(_BLOCK.findall(document.read_text(encoding="utf-8"))):
            if mark in comment if mark else not _NOT_HERE.search(comment):
                found[f"{document.name}-{number}"] = text.replace("\\\n", " ").splitlines()
    return found


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
    for folder in ("podcasts", "lectures", "more_speech"):
        for number in range(3):
            write_voice(place / folder / f"{number}.wav", hash_of(folder) + number)
    write_recordings(place / "recordings")
    shutil.copy(place / "recordings" / "0.wav", place / "recordings" / "a.wav")
    shutil.copytree(place / "recordings", place / "calls")
    (place / "calls" / "list.csv").write_text(
        "file,speaker\n0.wav,anna\n1.wav,anna\n2.wav,bert\na.wav,bert\n"
    )


def write_recordings(folder: Path) -> None:
    """Three synthetic utterances that a voice activity detector takes for speech."""
    demo = write_demo_corpus(
        folder.parent / "demo", num_train=3, num_validation=0, num_test=0, num_unlabeled=0
    )
    folder.mkdir()
    for number, path in enumerate(sorted(demo.glob("Audios/*.wav"))):
        shutil.copy(path, folder / f"{number}.wav")


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
                run_verb(words[2].removeprefix("raydec."), [_ELSEWHERE.get(word, word) for word in words[3:]])
    finally:
        os.chdir(before)


def run_verb(verb: str, arguments: list[str]) -> None:
    if verb == "export" and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("needs the onnx extra")
    if "vad" in arguments and importlib.util.find_spec("silero_vad") is None:
        pytest.skip("needs the vad extra")
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
    if verb == "tune":
        arguments = [*arguments, *SMALL]
    status = run_entry_point(importlib.import_module(f"raydec.{verb}").main, arguments)
    assert status == 0, (verb, arguments)
