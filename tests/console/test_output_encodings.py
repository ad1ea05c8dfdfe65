"""Terminals whose encoding lacks a character: every command prints its text with that character replaced."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from raydec.cli import VERBS
from raydec.cli import main as raydec
from raydec.console.evaluate_command import print_table
from raydec.console.terminal import err, note, out, run_entry_point
from raydec.errors import UserError

TEXT = "η² ≤ 0.5 – “é”…"


def printed_in(encoding: str, main: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The output on a terminal that rejects characters that its encoding lacks."""
    printed = io.BytesIO()
    streams = [io.TextIOWrapper(printed, encoding, "strict", write_through=True) for _ in range(2)]
    with monkeypatch.context() as patch:
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        main()
    return printed.getvalue()


def say_everything(arguments: Sequence[str]) -> None:
    out.print(TEXT)
    err.print(TEXT)
    note(TEXT)
    print_table(TEXT, ["a", TEXT], [["b", TEXT]])
    sys.stdout.write(f"{TEXT}\n")
    # Python's representation of a file name that is not valid UTF-8.
    note("caf\udce9.wav")
    raise UserError(f"{TEXT} caf\udce9.wav")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r", "utf-8"])
def test_nothing_that_is_printed_ends_in_an_encoding_error(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []
    printed = printed_in(
        encoding, lambda: statuses.append(run_entry_point(say_everything, [])), monkeypatch
    ).decode(encoding)
    assert statuses == [2] and "caf?.wav" in printed
    assert printed.count(TEXT.encode(encoding, "replace").decode(encoding)) == 8


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_can_be_read_in_ascii(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> None:
        with pytest.raises(SystemExit, match="0"):
            raydec([verb, "--help"])

    assert b"usage:" in printed_in("ascii", ask, monkeypatch)


def test_a_process_whose_output_is_latin_1_prints_what_it_can() -> None:
    code = (
        "import sys\nfrom raydec.console.terminal import note, run_entry_point\n"
        "sys.exit(run_entry_point(lambda arguments: note('η² of café')))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "?² of café\n".encode("latin-1"), b"")
