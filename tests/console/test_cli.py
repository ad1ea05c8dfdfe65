"""``raydec VERB``: what it lists, what it loads, what it passes on."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import raydec
from raydec import cli
from raydec.errors import UserError

PACKAGE = Path(raydec.__file__).parent


def test_help_lists_every_verb_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert cli.main(arguments) == 0
        printed = capsys.readouterr().out
        for verb, summary in cli.available_verbs().items():
            (line,) = [line for line in printed.splitlines() if line.split()[:1] == [verb]]
            assert line.endswith(summary) and len(line) < 80


def test_every_entry_module_is_a_verb() -> None:
    """Every module with an entry point must be listed by the command."""
    entries = {
        path.stem
        for path in PACKAGE.glob("*.py")
        if "run_entry_point(main)" in path.read_text(encoding="utf-8")
    }
    assert entries == cli.available_verbs().keys()
    for verb in entries:
        assert callable(importlib.import_module(f"raydec.{verb}").main)


def test_a_verb_without_a_module_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.VERBS, "divine", "not there yet")
    assert cli.main(["--help"]) == 0 and "divine" not in capsys.readouterr().out
    assert cli.main(["divine"]) == 2


@pytest.mark.parametrize("argument", ["--version", "-V"])
def test_version(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([argument]) == 0
    assert capsys.readouterr().out == f"raydec {raydec.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predikt", "model"], "no verb 'predikt'; did you mean 'predict'?"),
        (["xyzzy"], "no verb 'xyzzy'; the verbs are train, "),
        (["convert", "--norm", "x", "--out", "y"], "no checkpoint given"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1


def test_a_verb_gets_the_rest_of_the_line_and_its_status_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # The attribute ``raydec.predict`` is the function of the same name.
    command = importlib.import_module("raydec.predict")
    seen: list[list[str]] = []
    monkeypatch.setattr(command, "main", lambda arguments: seen.append(list(arguments)))
    assert cli.main(["predict", "model", "a b.wav", "--out", "x.csv"]) == 0
    assert seen == [["model", "a b.wav", "--out", "x.csv"]]

    def refuse(arguments: list[str]) -> None:
        raise UserError("no")

    monkeypatch.setattr(command, "main", refuse)
    assert cli.main(["predict"]) == 2


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import json, sys\nfrom raydec.cli import main\n"
        "assert main(['--help']) == 0 and main(['--version']) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert not {"torch", "ray", "numpy", "pyarrow", "pydantic", "raydec.train"} & modules
