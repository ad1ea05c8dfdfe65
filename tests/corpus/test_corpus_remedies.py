"""What a person is told: tables that are not read, names that do not fit, one store for two processes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from corpus_support import Spoken, make_store, many, write_corpus

from raydec.corpus.readers import read_corpus
from raydec.features.audio import Recording
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.store import FeatureStore
from raydec.features.store_writer import StoreSummary
from raydec.files.locks import exclusive
from raydec.preparation import prepare_store


def folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("labels.xlsx", "PK", "labels.xlsx is a spreadsheet; save it as CSV"),
        ("labels.ods", "PK", "labels.ods is a spreadsheet; save it as CSV"),
        (
            "labels.csv",
            "clip,arousal\na,3\n",
            "labels.csv has no column of file names; name one of its columns 'file'",
        ),
        ("labels.pkl", "x", "labels.pkl has an unsupported format; save it as CSV"),
    ],
)
def test_a_table_that_is_not_read_is_named_with_the_remedy(
    tmp_path: Path, name: str, content: str, why: str
) -> None:
    folder = folder_of(tmp_path, "a.wav")
    (folder / name).write_text(content)
    assert read_corpus(folder).warnings[0] == f"NO LABELS WERE READ, although there are tables: {why}"
    assert read_corpus(folder, format="folder").warnings == ()


@pytest.mark.parametrize(
    "before", ["# made by hand\n", "# labels, 2024\n#second\n\n", "Labels of my corpus\n", "sep=,\n# x\n"]
)
def test_a_header_below_comments_is_found(tmp_path: Path, before: str) -> None:
    folder = folder_of(tmp_path, "a.wav")
    (folder / "labels.csv").write_text(f"{before}file,arousal,split\na.wav,3,train\n")
    corpus = read_corpus(folder)
    assert (corpus.format, corpus.table["arousal"].to_pylist()) == ("manifest", [3.0])
    assert "lines before its header, line" in corpus.warnings[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sub/0001", "no audio file at this path; there is 0001.wav"),
        ("sub/1", "no audio file at this path; there is 0001.wav"),
        ("sub/0001.mp3", "no audio file at this path; there is 0001.wav"),
        ("sub/0002.wav", "no audio file at this path"),
    ],
)
@pytest.mark.parametrize("with_audio", [False, True])
def test_a_name_that_does_not_fit_names_the_file_that_is_there(
    tmp_path: Path, name: str, reason: str, with_audio: bool
) -> None:
    folder = folder_of(tmp_path, "sub/0001.wav", "b.wav")
    (folder / "labels.csv").write_text(f"file,arousal,split\n{name},3,train\nb.wav,3,train\n")
    (skip,) = read_corpus(folder, audio=folder if with_audio else None).skipped
    assert (skip.file, skip.reason) == (name, reason)


@pytest.mark.parametrize("with_audio", [False, True])
@pytest.mark.parametrize(
    "prefix", ["C:\\Users\\me\\corpus\\", "D:/data/", "\\\\server\\share\\", "/home/me/corpus/"]
)
def test_a_path_of_another_computer_says_what_to_write(tmp_path: Path, prefix: str, with_audio: bool) -> None:
    folder = folder_of(tmp_path, "sub/a.wav", "b.wav")
    name = prefix + ("sub\\a.wav" if "\\" in prefix else "sub/a.wav")
    (folder / "labels.csv").write_text(f"file,arousal,split\n{name},3,train\nb.wav,3,train\n")
    (skip,) = read_corpus(folder, audio=folder if with_audio else None).skipped
    assert skip.reason.endswith(", for example sub/a.wav")


@pytest.mark.parametrize(("num_validation", "warned"), [(1, True), (2, False), (0, False)])
def test_validation_of_one_utterance_is_a_warning(tmp_path: Path, num_validation: int, warned: bool) -> None:
    spoken = [*many(2), *many(num_validation, "validation", "v"), Spoken("x.wav", "validation", arousal=None)]
    store = make_store(write_corpus(tmp_path / "audio", spoken), tmp_path / "store")
    notices = json.loads((store.path / "store.json").read_text())["notices"]
    expected = "only one usable validation utterance is labeled for arousal"
    assert any(notice.startswith(expected) for notice in notices) == warned


class _Held(MelFrontEnd):
    """Mel frames; the first recording stays half-written until it is released."""

    begun, released = threading.Event(), threading.Event()

    def blocks(self, recording: Recording) -> Iterator[torch.Tensor]:
        if not self.begun.is_set():
            self.begun.set()
            assert self.released.wait(60)
        yield from super().blocks(recording)


@pytest.mark.parametrize("restart", [False, True], ids=["resuming", "restarting"])
def test_nobody_removes_the_half_written_shard_of_another(
    tmp_path: Path, restart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "audio", many(20))
    corpus = read_corpus(tmp_path / "audio")
    monkeypatch.setattr(_Held, "begun", threading.Event())
    monkeypatch.setattr(_Held, "released", threading.Event())
    told: list[str] = []
    monkeypatch.setattr("raydec.preparation.note", told.append)

    def prepared(front_end: MelFrontEnd, restart: bool) -> Future[StoreSummary]:
        return pool.submit(
            prepare_store,
            corpus,
            tmp_path / "store",
            num_workers=0,
            restart=restart,
            quiet=True,
            front_end=front_end,
        )

    with ThreadPoolExecutor(2) as pool:
        first = prepared(_Held(), False)
        assert _Held.begun.wait(60)
        second = prepared(MelFrontEnd(), restart)
        while not told and not second.done():
            time.sleep(0.01)
        _Held.released.set()
        assert first.result(60).splits == second.result(60).splits
    assert told == [f"another process is preparing {tmp_path / 'store'}; waiting for it to end"]
    assert second.result().was_complete is not restart
    FeatureStore.open(tmp_path / "store")


def test_who_waits_is_told_and_goes_on_when_the_other_ends(tmp_path: Path) -> None:
    told, entered = threading.Event(), threading.Event()

    def second() -> None:
        with exclusive(tmp_path, told.set):
            entered.set()

    with exclusive(tmp_path, told.set):
        assert not told.is_set()
        thread = threading.Thread(target=second)
        thread.start()
        assert told.wait(10)
        time.sleep(0.1)
        assert not entered.is_set()
    assert entered.wait(10)
    thread.join()
    assert list(tmp_path.iterdir()) == []
