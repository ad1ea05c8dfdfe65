"""Lists of files to predict: encodings, Kaldi's, corpora's own label files, and segments."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from corpus_support import voice
from model_support import small_model

from raydec.console.terminal import run_entry_point
from raydec.corpus.segments import WHOLE, Segment
from raydec.errors import UserError
from raydec.inference.audio_inputs import Source, find_inputs
from raydec.model.directory import save_model
from raydec.predict import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "é b.wav"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def files(*paths: str) -> list[str]:
    return [source.file for source in find_inputs(paths)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.tsv"])
def test_lists_may_be_in_any_encoding(folder: Path, encoding: str, name: str) -> None:
    header = {"list.txt": "", "list.csv": "file,note\r\n", "list.tsv": "note\tfile\r\n"}[name]
    row = {"list.txt": "{}\r\n", "list.csv": "{},x\r\n", "list.tsv": "x\t{}\r\n"}[name]
    text = header + row.format("a.wav") + row.format("é b.wav")
    (folder / name).write_bytes(text.encode(encoding))
    assert files(name) == ["a.wav", "é b.wav"]


@pytest.mark.parametrize("name", ["wav.scp", "data.SCP"])
def test_kaldi_lists_name_the_file_after_the_utterance(folder: Path, name: str) -> None:
    (folder / name).write_text("utt-1 a.wav\nutt-2   é b.wav\n\nutt-3 /nowhere/c.wav\n")
    assert files(name) == ["a.wav", "é b.wav", "/nowhere/c.wav"]


def test_kaldi_commands_are_refused_and_not_run(folder: Path) -> None:
    (folder / "wav.scp").write_text("utt-1 touch ran && cat a.wav |\n")
    with pytest.raises(UserError, match=r"wav.scp: utt-1 is a command \(touch ran .*raydec runs no commands"):
        find_inputs(["wav.scp"])
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("labels", "audio"),
    [
        ("msp/Labels/labels_consensus.csv", "msp/Audios"),
        ("msp/labels_consensus.csv", "msp/Audio"),
        ("corpus/label/table.tsv", "corpus/wavs"),
    ],
)
def test_a_label_file_finds_the_audio_folder_of_its_corpus(folder: Path, labels: str, audio: str) -> None:
    (folder / audio / "part1").mkdir(parents=True)
    for name in ("MSP_1.wav", "part1/MSP_2.wav"):
        (folder / audio / name).write_bytes(b"x")
    (folder / labels).parent.mkdir(exist_ok=True)
    delimiter = "\t" if labels.endswith("tsv") else ","
    rows = [("FileName", "EmoAct"), ("MSP_1.wav", "4"), ("MSP_2.wav", "5"), ("MSP_3.wav", "6")]
    (folder / labels).write_text("\n".join(delimiter.join(row) for row in rows) + "\n")
    lost = str(Path(labels).parent / "MSP_3.wav")
    assert files(labels) == [f"{audio}/MSP_1.wav", f"{audio}/part1/MSP_2.wav", lost]


def test_files_beside_the_list_come_before_an_audio_folder(folder: Path) -> None:
    (folder / "audio").mkdir()
    (folder / "audio" / "a.wav").write_bytes(b"other")
    (folder / "list.csv").write_text("file\na.wav\n")
    assert files("list.csv") == ["a.wav"]


def test_a_ragged_row_is_refused_and_not_left_out(folder: Path) -> None:
    (folder / "list.csv").write_text("file,note\na.wav,x\na.wav,x,y\n")
    with pytest.raises(UserError, match="line 3: 3 cells, but the header has 2"):
        find_inputs(["list.csv"])


@pytest.mark.parametrize(
    ("first", "second"), [("0.5,1.25", "1.5,"), ("0 days 00:00:00.5,0 days 00:00:01.25", "00:01.5,NaT")]
)
def test_segments_of_one_file_are_read_together(folder: Path, first: str, second: str) -> None:
    (folder / "list.csv").write_text(
        f"file,start,end\na.wav,{first}\né b.wav,,\na.wav,{second}\na.wav,{first}\n"
    )
    assert find_inputs(["list.csv"]) == [
        Source("a.wav", (Segment(0.5, 1.25), Segment(1.5))),
        Source("é b.wav", (WHOLE,)),
    ]
    table = {"path": ["a.wav", "a.wav"], "start": [0.5, 1.5], "duration": [0.75, None]}
    pq.write_table(pa.table(table), "list.parquet")
    assert find_inputs(["list.parquet"]) == [Source("a.wav", (Segment(0.5, 1.25), Segment(1.5)))]


def test_a_segment_that_is_none_names_its_line(folder: Path) -> None:
    (folder / "list.csv").write_text("file,start,end\na.wav,0,1\na.wav,3,2\n")
    with pytest.raises(UserError, match=r"list.csv line 3: the segment ends at 2 s, but starts at 3 s"):
        find_inputs(["list.csv"])


def predict(*arguments: str) -> int:
    return run_entry_point(main, [*arguments, "--workers", "0"])


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


SCORES = ("arousal", "valence", "dominance", "cluster")


def test_segments_are_predicted_as_files_of_their_own_would_be(folder: Path) -> None:
    save_model(small_model(), "model")
    samples = voice(1, 3.0)
    soundfile.write("long.wav", samples, 16_000, subtype="FLOAT")
    soundfile.write("cut.wav", samples[16_000:40_000], 16_000, subtype="FLOAT")
    Path("list.csv").write_text("file,start,end\nlong.wav,1,2.5\nlong.wav,,\nlong.wav,7,8\n")
    assert predict("model", "list.csv", "--out", "segments.csv") == 0
    assert predict("model", "long.wav", "cut.wav", "--out", "files.csv") == 0
    first, whole, beyond = rows_of("segments.csv")
    of_whole, of_cut = rows_of("files.csv")
    assert (first["start"], first["end"], of_cut["end"]) == ("1.0", "2.5", "1.5")
    assert [first[name] for name in SCORES] == [of_cut[name] for name in SCORES]
    assert whole == of_whole
    assert (beyond["start"], beyond["end"]) == ("7.0", "8.0") and "after the end of the recording" in beyond[
        "error"
    ]
    assert predict("model", "list.csv", "--out", "windows.csv", "--windows", "0.5") == 0
    assert predict("model", "cut.wav", "--out", "cut.csv", "--windows", "0.5") == 0
    windows = [row for row in rows_of("windows.csv") if row["arousal"]]
    assert [row["start"] for row in windows[:3]] == ["1.0", "1.5", "2.0"]
    for of_segment, of_file in zip(windows[:3], rows_of("cut.csv"), strict=True):
        ours, theirs = ([float(row[name]) for name in SCORES[:3]] for row in (of_segment, of_file))
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_list_that_grew_predicts_the_new_segments_too(folder: Path) -> None:
    save_model(small_model(), "model")
    soundfile.write("long.wav", voice(1, 3.0), 16_000)
    Path("list.csv").write_text("file,start,end\nlong.wav,0.5,1\n")
    assert predict("model", "list.csv", "--out", "out.csv") == 0
    Path("list.csv").write_text("file,start,end\nlong.wav,0.5,1\nlong.wav,2,2.75\n")
    assert predict("model", "list.csv", "--out", "out.csv") == 0
    assert [(row["start"], row["end"]) for row in rows_of("out.csv")] == [("0.5", "1.0"), ("2.0", "2.75")]


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("bad", [b"garbage", b"", None])
def test_a_file_that_failed_is_tried_again(
    folder: Path, out: str, bad: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(small_model(), "model")
    Path("in").mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        soundfile.write(f"in/{name}", voice(1, 0.6), 16_000)
    Path("list.txt").write_text("in/a.wav\nin/b.wav\nin/c.wav\n")
    if bad is None:
        Path("in/b.wav").rename("in/kept")
    else:
        Path("in/b.wav").write_bytes(bad)
    assert predict("model", "list.txt", "--out", out) == 0
    assert predict("model", "list.txt", "--out", out) == 0
    assert "1 of 3 files failed before and are retried" in capsys.readouterr().out
    soundfile.write("in/b.wav", voice(2, 0.6), 16_000)
    assert predict("model", "list.txt", "--out", out) == 0
    assert capsys.readouterr().out.endswith(f"wrote {out}: 3 rows\n")
    assert predict("model", "list.txt", "--out", f"whole.{out}") == 0
    assert Path(out).read_bytes() == Path(f"whole.{out}").read_bytes()


def test_a_silent_window_is_a_result_and_is_not_tried_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(small_model(), "model")
    samples = np.concatenate([voice(1, 1.0), np.zeros(16_000, np.float32)])
    soundfile.write("half.wav", samples, 16_000)
    for _ in range(2):
        assert predict("model", "half.wav", "--out", "out.csv", "--windows", "1") == 0
    printed = capsys.readouterr().out
    assert "1 of 1 files already have rows" in printed and "retried" not in printed


@pytest.mark.parametrize("content", [b"garbage", np.zeros(8000, np.int16).tobytes(), None])
def test_exit_status_1_where_nothing_could_be_predicted(
    folder: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(small_model(), "model")
    Path("list.txt").write_text("bad.wav\n")
    if content is not None:
        Path("bad.wav").write_bytes(content)
    assert predict("model", "list.txt", "--out", "out.csv") == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: nothing could be predicted; the first of 1 rows: bad.wav: ")
    assert complaint.count("\n") == 1 and len(rows_of("out.csv")) == 1


def test_what_is_odd_about_a_recording_stands_in_its_rows(folder: Path) -> None:
    save_model(small_model(), "model")
    good, click = voice(1, 2.0), voice(3, 2.0) * 0.01
    click[16_000] = 0.9
    for name, samples in (("good", good), ("offset", good + 0.4), ("click", click)):
        soundfile.write(f"{name}.wav", samples, 16_000, subtype="FLOAT")
    content = Path("good.wav").read_bytes()
    Path("short.wav").write_bytes(content[: len(content) // 2])
    names = ("good.wav", "offset.wav", "click.wav", "short.wav")
    assert predict("model", *names, "--out", "out.csv") == 0
    warnings = [row["warning"] for row in rows_of("out.csv")]
    for warning, words in zip(warnings, ("", "DC offset", "click", "cut short"), strict=True):
        assert words in warning and bool(warning) == bool(words)
    assert predict("model", "offset.wav", "--out", "windows.csv", "--windows", "1") == 0
    assert all("DC offset" in row["warning"] for row in rows_of("windows.csv"))
