"""``python -m raydec.prepare --verify``: which damage it finds, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_support import make_store, many, write_corpus

from raydec.console.terminal import run_entry_point
from raydec.prepare import main


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(write_corpus(tmp_path / "audio", many(3)), tmp_path / "store").path


def flip_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_store_passes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_entry_point(main, ["--verify", str(store)]) == 0
    assert "3 utterances, all checksums match" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["frames-00000.arrow", "utterances.arrow"])
def test_one_wrong_bit_is_found(store: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    flip_middle(store / name)
    assert run_entry_point(main, ["--verify", str(store)]) == 2
    captured = capsys.readouterr()
    assert f"damaged at {name}" in captured.out + captured.err and "every checksum" not in captured.out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--verify", "missing"], "no feature store at"),
        (["--verify", "one", "corpus"], "cannot be combined with another folder; omit corpus"),
        (["corpus"], "are required: CORPUS_DIR STORE_DIR"),
        ([], "are required: CORPUS_DIR STORE_DIR"),
    ],
)
def test_mistakes_are_named(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_entry_point(main, arguments) == 2
    captured = capsys.readouterr()
    assert problem in captured.out + captured.err
