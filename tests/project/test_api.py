"""The public Python API: lazy, typed, and the same as the commands."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile
from corpus_support import voice
from report_support import TINY, make_tiny_store

import raydec
from raydec.config import Config
from raydec.console.terminal import run_entry_point


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_store(tmp_path_factory.mktemp("api"))


def tiny() -> dict[str, object]:
    """The small network of the tests as a mapping with dotted keys."""
    pairs = (setting.split("=", 1) for setting in TINY)
    return {key: json.loads(value) if value[:1] in "[0123456789" else value for key, value in pairs}


def test_every_public_name_is_there_and_none_costs_an_import() -> None:
    code = """
import sys, raydec
assert set(raydec.__all__) <= set(dir(raydec))
assert not {"torch", "ray", "numpy", "pydantic"} & set(sys.modules)
assert all(callable(getattr(raydec, name)) for name in raydec.__all__ if name != "__version__")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["train", "search", "predict", "evaluate", "report"])
def test_importing_a_verbs_module_leaves_the_function(name: str) -> None:
    module = importlib.import_module(f"raydec.{name}")
    assert module is sys.modules[f"raydec.{name}"]
    function = getattr(raydec, name)
    assert callable(function) and function.__name__ == name and function.__module__ != module.__name__
    assert importlib.reload(module) is module and callable(getattr(raydec, name))


def test_a_function_and_the_command_train_the_same_run(store: Path, tmp_path: Path) -> None:
    settings = {**tiny(), "data.store": str(store), "training": {"epochs": 2}}
    result = raydec.train(settings, name="function", output_dir=str(tmp_path))
    words = [*TINY, f"data.store={store}", "training.epochs=2", "name=command", f"output_dir={tmp_path}"]
    assert run_entry_point(importlib.import_module("raydec.train").main, words) == 0
    summary = json.loads((tmp_path / "command" / "summary.json").read_text())
    assert result.ccc == summary["ccc"]
    assert result.model == tmp_path / "function" / "model" and result.model.is_dir()
    assert result.config.training.epochs == 2 and not result.already_finished
    again = raydec.train(result.config)
    assert again.already_finished and again.ccc == result.ccc
    page = raydec.report(result.folder, out=tmp_path / "page.html")
    assert page.stat().st_size > 1_000_000
    [split] = raydec.evaluate(result.model, store).splits
    assert {name: found.estimate.ccc for name, found in split.attributes.items()} == pytest.approx(
        result.ccc[split.split], abs=1e-5
    )
    recording = tmp_path / "a.wav"
    soundfile.write(recording, voice(1, 1.2), 16_000)
    counts = raydec.predict(result.model, [recording], tmp_path / "rows.csv", num_workers=0)
    [row] = csv.DictReader((tmp_path / "rows.csv").open())
    assert (counts.rows, counts.failed) == (1, 0)
    assert float(row["arousal"]) == pytest.approx(raydec.load(result.model).predict(recording)["arousal"])


def test_a_file_a_mapping_and_keywords_come_in_this_order(store: Path, tmp_path: Path) -> None:
    seen: list[Config] = []

    @contextmanager
    def stop(config: Config) -> Iterator[None]:
        seen.append(config)
        raise KeyboardInterrupt
        yield

    file = tmp_path / "mine.yaml"
    file.write_text(f"data: {{store: {store}}}\ntraining: {{epochs: 7, batch_utterances: 4}}\n")
    with pytest.raises(KeyboardInterrupt):
        raydec.train(file, watch=stop, training={"epochs": 9}, output_dir=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        raydec.train({"training.epochs": 7, "data.store": str(store)}, watch=stop, training={"epochs": 8})
    assert [config.training.epochs for config in seen] == [9, 8]
    assert seen[0].training.batch_utterances == 4


def test_mistakes_are_the_commands_errors(tmp_path: Path) -> None:
    with pytest.raises(raydec.UserError, match=r"unknown key 'epoch'; did you mean 'epochs'\?"):
        raydec.train({"training.epoch": 3})
    with pytest.raises(raydec.UserError, match="unknown key 'num_sample'"):
        raydec.search({"search": {"num_sample": 3}})
    with pytest.raises(raydec.UserError, match=str(tmp_path)):
        raydec.report(tmp_path / "none")
