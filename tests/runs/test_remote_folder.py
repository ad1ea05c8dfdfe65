"""A run folder behind a URI: what reading it leaves behind, and how often it is read."""

import gc
import tempfile
import threading
from pathlib import Path

import pytest

from raydec.config import load_config
from raydec.console import progress
from raydec.runs.run_folder import RunFolder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_reading_leaves_no_folders_and_writing_takes_its_own_away(temporary: Path, tmp_path: Path) -> None:
    location = f"file://{tmp_path}/run"
    writer = RunFolder(location)
    writer.create()
    writer.write("a.json", "{}")
    writer.sync()
    assert len(list(temporary.iterdir())) == 1
    for _ in range(20):
        folder = RunFolder(location)
        assert folder.read_json("a.json") == {} and folder.read("b") is None
    assert len(list(temporary.iterdir())) == 1
    del writer
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_local_run_folder_is_its_own_place(temporary: Path, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    folder.create()
    folder.write("a", "b")
    assert (tmp_path / "run" / "a").read_text() == "b"
    del folder
    gc.collect()
    assert (tmp_path / "run" / "a").exists(), "what was written is gone"


@pytest.mark.parametrize("prefix, least_s", [("", 0.1), ("file://", 3.0)])
def test_remote_folders_are_looked_at_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, least_s: float
) -> None:
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            self.set()
            return True

    config = load_config(None, [f"storage_path={prefix}{tmp_path}", "name=x", "data.store=x"])
    progress._follow(config, Stop())
    assert len(waits) == 1 and least_s <= waits[0] < 10
