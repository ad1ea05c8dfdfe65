"""Segments of recordings: times as tables write them, cut out by ``prepare``."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from corpus_support import make_store, voice

from raydec.corpus.readers import read_corpus
from raydec.corpus.segments import Segment, seconds_of, segment_of
from raydec.corpus.table import Skipped
from raydec.features.store import FeatureStore


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        (1.5, 1.5),
        (2, 2.0),
        (np.float32(1.5), 1.5),
        ("1.5", 1.5),
        (" 1,5 ", 1.5),
        ("1e-1", 0.1),
        ("0 days 00:00:01.5", 1.5),
        ("0 days 00:00:01.500000", 1.5),
        ("0 days 00:00:01.500000000", 1.5),
        ("1 days 02:03:04", 93784.0),
        ("0 days", 0.0),
        ("00:00:01.5", 1.5),
        ("01:30", 90.0),
        (datetime.timedelta(seconds=1.5), 1.5),
        (pd.Timedelta("1.5s"), 1.5),
        (np.timedelta64(1500, "ms"), 1.5),
        (datetime.time(0, 1, 2, 500_000), 62.5),
    ],
)
def test_times_as_tables_write_them(cell: Any, seconds: float) -> None:
    assert seconds_of(cell) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    "cell", [None, "", " ", "NaT", "nan", float("nan"), pd.NaT, np.timedelta64("NaT"), "<NA>"]
)
def test_cells_without_a_time(cell: Any) -> None:
    assert seconds_of(cell) is None
    assert segment_of(cell, cell) == Segment()


@pytest.mark.parametrize("cell", ["soon", "-1", -0.5, "1:2:3:4", "inf", True, "1_0", [1.0], "0 days x"])
def test_cells_that_hold_something_else(cell: Any) -> None:
    with pytest.raises(ValueError, match=r"start .* is neither a time in seconds"):
        segment_of(cell, None)


def test_a_segment_that_ends_before_it_starts() -> None:
    with pytest.raises(ValueError, match=r"ends at 1.5 s, but starts at 2 s"):
        segment_of(2, "1.5")


def corpus_of(folder: Path, table: str, name: str = "labels.csv") -> Path:
    folder.mkdir(exist_ok=True)
    soundfile.write(folder / "a.wav", voice(0, 4.0), 16_000)
    soundfile.write(folder / "b.wav", voice(1, 4.0), 16_000)
    (folder / name).write_text(table)
    return folder


def store_of(folder: Path, **options: Any) -> FeatureStore:
    return make_store(read_corpus(folder, **options), folder.parent / "store")


def places(store: FeatureStore) -> list[tuple[Any, ...]]:
    names = ("utterance_id", "split", "arousal", "start_s", "end_s")
    return list(zip(*(store.utterances[name].to_pylist() for name in names), strict=True))


AUDFORMAT = """file,start,end,arousal,split
a.wav,0 days 00:00:00,0 days 00:00:01.5,2.0,train
a.wav,0 days 00:00:01.5,0 days 00:00:03,5.0,train
b.wav,0 days 00:00:02,NaT,3.0,validation
"""


def test_two_segments_of_one_file_are_two_utterances(tmp_path: Path) -> None:
    store = store_of(corpus_of(tmp_path / "corpus", AUDFORMAT))
    assert places(store) == [
        ("a.wav[0-1.5]", "train", 2.0, 0.0, 1.5),
        ("a.wav[1.5-3]", "train", 5.0, 1.5, 3.0),
        ("b.wav[2-]", "validation", 3.0, 2.0, None),
    ]
    assert store.utterances["duration_s"].to_pylist() == [1.5, 1.5, 2.0]


def test_frames_are_those_of_the_part_cut_out(tmp_path: Path) -> None:
    folder = corpus_of(tmp_path / "corpus", AUDFORMAT)
    store = store_of(folder)
    cut = tmp_path / "cut"
    cut.mkdir()
    for name, file, start, end in (
        ("1", "a", 0, 24_000),
        ("2", "a", 24_000, 48_000),
        ("3", "b", 32_000, None),
    ):
        samples, rate = soundfile.read(folder / f"{file}.wav", start=start, stop=end, dtype="int16")
        soundfile.write(cut / f"{name}.wav", samples, rate)
    expected = make_store(read_corpus(cut), tmp_path / "cut-store")
    for row in range(3):
        np.testing.assert_array_equal(store.frames(row), expected.frames(row))


@pytest.mark.parametrize(
    "table",
    [
        "file;start;end;arousal;split\na.wav;1,5;3,0;5;train\n",
        "file,Start Time,Stop,arousal,split\na.wav,00:01.5,00:00:03,5,train\n",
        "filename,start_s,duration,arousal,split\na.wav,1.5,1.5,5,train\n",
        "audio_filepath,offset,duration,arousal,split\na.wav,1.5,1.5,5,train\n",
        "file,onset,offset,arousal,split\na.wav,1.5,3,5,train\n",
    ],
)
def test_columns_of_other_tools(tmp_path: Path, table: str) -> None:
    corpus = read_corpus(corpus_of(tmp_path / "corpus", table))
    assert corpus.skipped == ()
    row = corpus.table.to_pylist()[0]
    assert (row["utterance_id"], row["start_s"], row["end_s"]) == ("a.wav[1.5-3]", 1.5, 3.0)


def test_a_duration_alone_makes_no_segment(tmp_path: Path) -> None:
    folder = corpus_of(tmp_path / "corpus", "file,duration,arousal,split\na.wav,4.0,5,train\n")
    row = read_corpus(folder).table.to_pylist()[0]
    assert (row["utterance_id"], row["start_s"], row["end_s"]) == ("a.wav", None, None)


def test_parquet_and_json_lines_hold_times_of_their_own(tmp_path: Path) -> None:
    folder = corpus_of(tmp_path / "corpus", "", "notes.txt")
    times = {"start": pd.to_timedelta([0, 1.5], "s"), "end": pd.to_timedelta([1.5, None], "s")}
    frame = pd.DataFrame({"file": ["a.wav"] * 2, **times, "arousal": [2.0, 5.0], "split": "train"})
    frame.set_index(["file", "start", "end"]).to_parquet(folder / "db.parquet")
    expected = [("a.wav[0-1.5]", 0.0, 1.5), ("a.wav[1.5-]", 1.5, None)]
    rows = read_corpus(folder).table.to_pylist()
    assert [(row["utterance_id"], row["start_s"], row["end_s"]) for row in rows] == expected
    (folder / "db.parquet").unlink()
    lines = [{"file": "a.wav", "start": 0, "end": 1.5}, {"file": "a.wav", "start": 1.5, "end": None}]
    labels = {"arousal": 2.0, "split": "train"}
    (folder / "db.jsonl").write_text("\n".join(json.dumps({**line, **labels}) for line in lines))
    rows = read_corpus(folder).table.to_pylist()
    assert [(row["utterance_id"], row["start_s"], row["end_s"]) for row in rows] == expected


def test_segments_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    table = """file,start,end,arousal,split
a.wav,0,1,2,train
a.wav,0,1,3,train
a.wav,2,1,3,train
a.wav,soon,1,3,train
b.wav,3.5,4.5,3,train
b.wav,9,10,3,train
"""
    folder = corpus_of(tmp_path / "corpus", table)
    corpus = read_corpus(folder)
    assert corpus.skipped == (
        Skipped("a.wav", "the segment ends at 1 s, but starts at 2 s"),
        Skipped("a.wav", "start 'soon' is neither a time in seconds nor one like 0 days 00:00:01.5"),
        Skipped("a.wav[0-1]", "2 rows disagree: arousal is 2.0 and 3.0; keep one row"),
    )
    store = make_store(corpus, tmp_path / "store")
    assert [place[0] for place in places(store)] == ["b.wav[3.5-4.5]"]
    skipped = (store.path / "skipped.csv").read_text()
    assert 'b.wav[9-10],"the segment starts at 9 s, after the end of the recording"' in skipped
    warnings = (store.path / "warnings.csv").read_text()
    assert 'b.wav[3.5-4.5],"the segment ends at 4.5 s, the recording at 4.00 s"' in warnings


def test_one_segment_in_two_splits_is_a_leak_and_two_are_none(tmp_path: Path) -> None:
    table = "file,start,end,arousal,split\na.wav,0,1,2,train\nb.wav,0,1,3,test\nb.wav,1,2,3,train\n"
    folder = corpus_of(tmp_path / "corpus", table)
    soundfile.write(folder / "b.wav", voice(0, 4.0), 16_000)
    store = store_of(folder)
    notices = json.loads((store.path / "store.json").read_text())["notices"]
    assert any("b.wav[0-1] (test) = a.wav[0-1] (train)" in notice for notice in notices)
    assert not any("b.wav[1-2]" in notice for notice in notices)
