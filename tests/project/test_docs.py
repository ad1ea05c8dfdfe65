"""Every command, setting and link in the documents is one that exists."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs_support import DOCUMENTS, ROOT

from raydec.config import Config, iterate_keys, load_config
from raydec.corpus.readers import read_corpus

CONFIGURED_VERBS = ("train", "tune")
KEYS = {key for key, *_ in iterate_keys(Config)}
SECTIONS = {key.split(".")[0] for key in KEYS if "." in key}

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def commands(document: Path) -> Iterator[list[str]]:
    """Arguments of every ``python -m raydec.…`` in a bash block, the verb first."""
    for block in re.findall(r"```bash\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["python", "-m"] and words[2].startswith("raydec."):
                yield [words[2].removeprefix("raydec."), *words[3:]]


@functools.cache
def help_of(verb: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"raydec.{verb}", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_starts_with_two_commands_each_to_run_and_to_test() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks[0].splitlines() == ["pip install .", "python -m raydec.train"]
    assert blocks[1].splitlines() == ['pip install ".[test]"', "pytest"]
    assert re.search(r"^pytest( \|\||$)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)


@documents
def test_commands_have_the_verbs_options_and_settings_they_use(document: Path) -> None:
    for verb, *arguments in commands(document):
        described = help_of(verb)
        for option in (word for word in arguments if word.startswith("--")):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", described), f"{verb} has no {option}"
        if verb in CONFIGURED_VERBS:
            load_config(None, [word for word in arguments if "=" in word])


@documents
def test_settings_that_are_named_exist(document: Path) -> None:
    quoted = re.findall(r"`([a-z_]+\.[a-z_0-9]+)(?:=[^`]*)?`", document.read_text(encoding="utf-8"))
    named = {key for key in quoted if key.split(".")[0] in SECTIONS}
    assert named <= KEYS


def test_the_manifest_of_the_own_data_page_is_read_as_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    found = re.search(r"```csv\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "manifest.csv").write_text(found[1])
    for line in found[1].splitlines()[1:]:
        audio = tmp_path / line.split(",")[0]
        audio.parent.mkdir(parents=True, exist_ok=True)
        audio.write_bytes(b"not decoded here")
    corpus = read_corpus(tmp_path)
    assert (corpus.format, corpus.skipped, corpus.warnings) == ("manifest", (), ())
    rows = corpus.table.select(["split", "speaker", "dominance"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("train", "anna", 4.8),
        ("train", "anna", 3.0),
        ("validation", "bert", None),
        ("test", "carl", 3.9),
        ("unlabeled", None, None),
    ]


@documents
def test_links_to_files_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    for link in links:
        if "://" not in link:
            assert (document.parent / link).exists(), link
