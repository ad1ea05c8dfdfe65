"""``-v`` and ``-q`` on every verb; nothing but results in pipes, and bars and colours on terminals only."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
import soundfile
from corpus_support import many, write_corpus
from model_support import small_model, speech
from report_support import TINY, make_tiny_store
from rich.console import Console

from raydec import cli
from raydec.console import terminal
from raydec.model.directory import save_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model(small_model(), "model")
    soundfile.write("a.wav", speech(), 16_000)
    return tmp_path


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_can_be_louder_or_quieter(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    described = capsys.readouterr().out
    assert "-v, --verbose" in described and "-q, --quiet" in described
    assert cli.main([verb, "-v", "-q"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_predict_says_what_was_written_or_more_or_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for loudness in ("", "-v", "-q"):
        arguments = ["predict", "model", "a.wav", "--out", f"o{loudness}.csv", *filter(None, [loudness])]
        assert cli.main(arguments) == 0
        said[loudness], complaints = capsys.readouterr()
        assert complaints == ""
    assert said[""] == "wrote o.csv: 1 rows\n" and said["-q"] == ""
    assert "of speech in" in said["-v"] and "CPU time" in said["-v"] and "decode" in said["-v"]
    assert cli.main(["predict", "nowhere", "a.wav", "--out", "p.csv", "-q"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere")


def test_verbose_lets_the_log_of_raydec_through_and_only_while_asked_for(folder: Path) -> None:
    log = logging.getLogger("raydec")
    assert cli.main(["predict", "model", "a.wav", "--out", "o.csv", "-v"]) == 0
    assert log.isEnabledFor(logging.INFO)
    assert cli.main(["predict", "model", "a.wav", "--out", "o.csv"]) == 0
    assert not log.isEnabledFor(logging.INFO)


def test_prepare_is_quiet_but_for_what_was_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "audio", many(3))
    (tmp_path / "audio" / "bad.wav").write_bytes(b"")
    arguments = ["prepare", str(tmp_path / "audio"), str(tmp_path / "store"), "--workers", "0", "-q"]
    assert cli.main(arguments) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == "" and "skipped 1" in printed and "feature store" not in printed
    assert cli.main([*arguments[:-1], "--restart"]) == 0
    assert "feature store" in capsys.readouterr().out


def test_training_quietly_leaves_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        f"data.store={make_tiny_store(tmp_path)}",
        f"output_dir={tmp_path}",
        *TINY,
        "training.epochs=1",
    ]
    for loudness, has_lines in (("-q", False), ("-v", True)):
        assert cli.main(["train", *settings, f"name=run{loudness}", loudness]) == 0
        printed, complaints = capsys.readouterr()
        assert ("CCC on validation" in printed) == has_lines
        assert "run directory" in printed and ", epoch 1" in printed
        assert complaints == ""


def test_a_terminal_shows_a_bar_with_the_time_left_and_a_pipe_shows_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {}
    for is_terminal in (True, False):
        screen = io.StringIO()
        monkeypatch.setattr(terminal, "err", Console(file=screen, force_terminal=is_terminal, width=100))
        assert cli.main(["predict", "model", "a.wav", "--out", f"{is_terminal}.csv"]) == 0
        shown[is_terminal] = screen.getvalue()
    assert "predict" in shown[True] and "1/1" in shown[True] and "\x1b[" in shown[True]
    assert shown[False] == ""
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=screen, force_terminal=True, width=100))
    assert cli.main(["predict", "model", "a.wav", "--out", "quiet.csv", "-q"]) == 0
    assert screen.getvalue() == ""
