import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import soundfile
from model_support import small_model, speech

import raydec.inference.work
import raydec.ray_runtime.predict
from raydec.console.terminal import run_entry_point
from raydec.errors import UserError
from raydec.features.audio import load_audio
from raydec.features.chunking import chunk_utterance
from raydec.features.mel import mel_frames
from raydec.features.normalization import FrameNormalizer
from raydec.inference.audio_inputs import Source, find_inputs
from raydec.inference.prediction_output import PredictionCounts, PredictionOutput
from raydec.model.directory import load_model, save_model
from raydec.predict import main as predict_main

HEADER = ["file", "start", "end", "arousal", "valence", "dominance", "cluster", "warning", "error"]


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model and six recordings, one of them bad; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(raydec.inference.work, "_FILES_PER_PART", 2)
    save_model(small_model(), "model")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i, name in enumerate(["a.wav", "b, c.wav", "deep/d.WAV", "deep/é.flac", "z.wav"]):
        soundfile.write(tmp_path / "in" / name, speech(1.0 + i / 4), 16_000)
    (tmp_path / "in" / "bad.wav").write_bytes(b"garbage")
    (tmp_path / "in" / "notes.txt").write_text("not audio")
    yield tmp_path


def predict(*arguments: str) -> int:
    return run_entry_point(predict_main, arguments)


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_a_table(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("model", "in", "--out", "out.csv") == 0
    assert "wrote out.csv: 6 rows, 1 without a prediction" in capsys.readouterr().out
    rows = rows_of("out.csv")
    assert list(rows[0]) == HEADER
    assert [row["file"] for row in rows] == [
        f"in/{name}" for name in ("a.wav", "b, c.wav", "bad.wav", "deep/d.WAV", "deep/é.flac", "z.wav")
    ]
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, False, False]
    assert rows[4]["end"] == "1.75" and float(rows[4]["arousal"]) and rows[4]["cluster"].isdigit()


def test_csv_and_parquet_hold_the_same(recordings: Path) -> None:
    assert predict("model", "in", "--out", "a.csv", "--windows", "0.5") == 0
    assert predict("model", "in", "--out", "a.parquet", "--windows", "0.5") == 0
    table = pq.read_table("a.parquet")
    types = {field.name: field.type for field in table.schema}
    options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    assert pyarrow.csv.read_csv("a.csv", convert_options=options).equals(table)
    assert table.num_rows > 10 and table.schema.field("cluster").type == pa.int64()


def interrupt_after(monkeypatch: pytest.MonkeyPatch, num_calls: int) -> list[list[str]]:
    """Make the command stop as by Ctrl-C after some parts; returns what was predicted."""
    original, calls = raydec.inference.work.predict_files, []

    def watched(predictor, files, *rest):
        if len(calls) == num_calls:
            raise KeyboardInterrupt
        calls.append([source.file for source in files])
        return original(predictor, files, *rest)

    monkeypatch.setattr(raydec.inference.work, "predict_files", watched)
    return calls


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_an_interrupted_command_goes_on_where_it_stopped(
    recordings: Path, out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("model", "in", "--out", f"whole.{out}") == 0
    with monkeypatch.context() as patch:
        first = interrupt_after(patch, 2)
        assert predict("model", "in", "--out", out) == 130
    assert not Path(out).exists() and sum(map(len, first)) == 4
    with monkeypatch.context() as patch:
        second = interrupt_after(patch, 99)
        assert predict("model", "in", "--out", out) == 0
    assert "3 of 6 files already have rows" in capsys.readouterr().out
    assert [file for part in second for file in part] == ["in/bad.wav", "in/deep/é.flac", "in/z.wav"]
    assert Path(out).read_bytes() == Path(f"whole.{out}").read_bytes()


def test_a_finished_command_repeats_nothing_and_takes_new_files(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict("model", "in", "--out", "out.csv") == 0
    before = rows_of("out.csv")
    shutil.copy("in/a.wav", "in/aa.wav")
    calls = interrupt_after(monkeypatch, 99)
    assert predict("model", "in", "--out", "out.csv") == 0
    assert calls == [["in/aa.wav", "in/bad.wav"]]
    assert [row["file"] for row in rows_of("out.csv")][:2] == ["in/a.wav", "in/aa.wav"]
    assert predict("model", "in/z.wav", "--out", "out.csv") == 0
    assert len(calls) == 1 and len(rows_of("out.csv")) == len(before) + 1


def test_rows_of_different_models_or_windows_never_mix(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("model", "in", "--out", "out.csv") == 0
    assert predict("model", "in", "--out", "out.csv", "--windows", "1") == 2
    save_model(small_model(centroids=False), "model")
    assert predict("model", "in", "--out", "out.csv") == 2
    assert "out.csv was made with another model or other options; add --restart" in capsys.readouterr().err
    assert predict("model", "in", "--out", "out.csv", "--windows", "1", "--restart") == 0
    assert len(rows_of("out.csv")) > 6


def test_somebody_elses_file_is_not_overwritten(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.csv").write_text("precious")
    assert predict("model", "in", "--out", "out.csv") == 2
    assert "out.csv exists already; add --restart" in capsys.readouterr().err
    assert Path("out.csv").read_text() == "precious"
    assert predict("model", "in", "--out", "out.csv", "--restart") == 0


def test_a_changed_table_is_refused(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("model", "in", "--out", "out.csv") == 0
    Path("out.csv").write_text("file,start\nx,y\n")
    assert predict("model", "in", "--out", "out.csv") == 2
    assert "out.csv was changed and cannot be resumed" in capsys.readouterr().err


def test_a_crash_between_table_and_parts_repeats_no_row(tmp_path: Path) -> None:
    columns = [("file", pa.string()), ("start", pa.float64()), ("error", pa.string())]
    rows = pa.table({"file": ["b", "a", "a"], "start": [1.0, 2.0, 3.0], "error": [None] * 3})
    rows = rows.cast(schema := pa.schema(columns))
    output = PredictionOutput(tmp_path / "o.csv", schema, {}, restart=False)
    output.add(rows)
    shutil.copytree(tmp_path / ".o.csv.parts", tmp_path / "parts")
    output.finish(["a", "b"])
    shutil.copy(next((tmp_path / "parts").glob("part-*")), tmp_path / ".o.csv.parts")
    again = PredictionOutput(tmp_path / "o.csv", schema, {}, restart=False)
    assert again.done("silent").keys() == {"a", "b"}
    assert again.finish(["a", "b"]) == PredictionCounts(rows=3, failed=0)
    assert (tmp_path / "o.csv").read_text() == "file,start,error\na,2.0,\na,3.0,\nb,1.0,\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "a.wav\n\n deep/d.WAV \na.wav\nmissing.wav\n"),
        ("list.csv", "id,File\n1,a.wav\n2,deep/d.WAV\n3,\n4,missing.wav\n"),
        ("list.csv", "﻿path;note\r\na.wav;x,y\r\ndeep/d.WAV;\r\nmissing.wav;\r\n"),
        ("list.parquet", ["a.wav", "deep/d.WAV", None, "missing.wav"]),
    ],
)
def test_lists_name_files_relative_to_themselves(
    recordings: Path, name: str, content: str | list[str | None]
) -> None:
    path = recordings / "in" / name
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    else:
        pq.write_table(pa.table({"n": list(range(len(content))), "path": content}), path)
    expected = [str(recordings / "in" / item) for item in ("a.wav", "deep/d.WAV", "missing.wav")]
    assert find_inputs([path]) == [Source(file) for file in expected]
    assert find_inputs([Path("in/z.wav"), Path("in/z.wav"), path])[0] == Source("in/z.wav")


def test_unusable_inputs_are_user_errors(recordings: Path) -> None:
    (recordings / "empty").mkdir()
    for name, content in (("a.csv", "x,y\n1,2\n"), ("b.csv", ""), ("c.txt", "\n"), ("d.parquet", "no")):
        (recordings / name).write_text(content)
    for name, message in [
        ("nowhere", "nowhere does not exist"),
        ("empty", "empty contains no audio files"),
        ("a.csv", "a.csv has no column of file names"),
        ("b.csv", "b.csv is empty"),
        ("c.txt", "c.txt lists no files"),
        ("d.parquet", "cannot read d.parquet as Parquet"),
    ]:
        with pytest.raises(UserError, match=message):
            find_inputs([Path(name)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "in"], "--out"),
        (["model", "in", "--out", "o.txt"], "must end in .csv or .parquet"),
        (["nowhere", "in", "--out", "o.csv"], "no such folder"),
        (["model", "in", "--out", "o.csv", "--windows", "0"], "at least 0.1 s"),
        (["model", "in", "--out", "o.csv", "--windows", "nan"], "at least 0.1 s"),
        (["model", "in", "--out", "o.csv", "--windows", "x"], "'x' is not a number of seconds"),
        (
            ["model", "in", "--out", "o.csv", "--embeddings"],
            "for its vectors; change --out o.csv",
        ),
        (["model", "in", "--out", "o.csv", "--label-range", "3", "1"], "--label-range 3 1 is empty"),
        (["model", "in", "--out", "o.csv", "--workers", "-1"], "must be a non-negative integer"),
        (["model", "in", "--out", "in/a.wav/o.csv"], "cannot write in/a.wav/o.csv"),
    ],
)
def test_mistakes_are_one_line(
    recordings: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(recordings.glob("o.*"))


def test_embeddings_and_distances_are_columns_of_vectors(recordings: Path) -> None:
    assert predict("model", "in", "--out", "a.parquet", "--embeddings", "--distances") == 0
    table = pq.read_table("a.parquet")
    trained = load_model("model")
    assert trained.centroids is not None
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 16)
    assert table.schema.field("cluster_distances").type == pa.list_(pa.float32(), 5)
    rows = table.to_pylist()
    assert [row["embedding"] is None for row in rows] == [row["error"] is not None for row in rows]
    # By the definitions, chunk by chunk.
    normalizer = FrameNormalizer(trained.feature_mean, trained.feature_std, "log", 3.0)
    chunks = chunk_utterance(normalizer.normalize(mel_frames(load_audio("in/a.wav"))), 11, 62, "tile")
    embedding = trained.networks[0][1].embed(chunks).detach().double().numpy()
    distances = np.linalg.norm(embedding[:, None] - trained.centroids[None], axis=-1)
    np.testing.assert_allclose(rows[0]["embedding"], embedding.mean(0), atol=1e-4)
    np.testing.assert_allclose(rows[0]["cluster_distances"], distances.mean(0), rtol=1e-4)
    assert predict("model", "in", "--out", "a.parquet", "--embeddings") == 2


def test_clipping_limits_scores_to_the_labels_range(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("model", "in", "--out", "free.csv") == 0
    assert predict("model", "in", "--out", "x.csv", "--clip") == 2
    assert "does not record the range of its labels; add --label-range LOW HIGH" in capsys.readouterr().err
    scores = [float(row["arousal"]) for row in rows_of("free.csv") if row["arousal"]]
    low, high = sorted(scores)[1:3]
    save_model(small_model(extra={"label_range": [low, high]}), "ranged")
    assert predict("ranged", "in", "--out", "clipped.csv", "--clip") == 0
    clipped = [float(row["arousal"]) for row in rows_of("clipped.csv") if row["arousal"]]
    assert clipped == pytest.approx(np.clip(scores, low, high)) and clipped != pytest.approx(scores)
    assert predict("model", "in", "--out", "given.csv", "--label-range", str(low), str(high)) == 0
    assert Path("given.csv").read_bytes() == Path("clipped.csv").read_bytes()


def test_one_window_is_the_whole_file_where_they_coincide(recordings: Path) -> None:
    assert predict("model", "in", "--out", "whole.parquet") == 0
    assert predict("model", "in", "--out", "windows.parquet", "--windows", "10") == 0
    assert pq.read_table("windows.parquet").equals(pq.read_table("whole.parquet"))


def test_inputs_may_be_uris(recordings: Path) -> None:
    base = (recordings / "in").as_uri()
    assert predict("model", "in", "--out", "local.csv") == 0
    (recordings / "in" / "list.txt").write_text("a.wav\n" + f"{base}/deep/d.WAV\nmissing.wav\n")
    assert predict("model", base, f"{base}/list.txt", f"{base}/z.wav", "--out", "remote.csv") == 0
    remote = {row["file"]: row for row in rows_of("remote.csv")}
    for row in rows_of("local.csv"):
        twin = remote.pop(base + quote(row["file"].removeprefix("in")))
        assert {**twin, "file": row["file"]} == row
    assert [row["error"] for row in remote.values()] == ["the file does not exist"]
    with pytest.raises(UserError, match="does not exist"):
        find_inputs([f"{base}/nowhere"])
    with pytest.raises(UserError, match="cannot be listed"):
        find_inputs(["nosuchscheme://bucket/x"])


def test_a_killed_command_loses_no_row_and_repeats_none(recordings: Path) -> None:
    for number in range(150):
        os.link("in/a.wav", f"in/link{number:03d}.wav")
    command = [
        sys.executable,
        "-m",
        "raydec.predict",
        "model",
        "in",
        "--out",
        "out.parquet",
        "--workers",
        "0",
    ]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(list(recordings.glob(".out.parquet.parts/part-*"))) < 2:
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    child.kill()
    child.wait()
    num_parts = len(list(recordings.glob(".out.parquet.parts/part-*")))
    assert 2 <= num_parts < 5
    assert predict("model", "in", "--out", "out.parquet") == 0
    assert predict("model", "in", "--out", "whole.parquet") == 0
    assert pq.read_table("out.parquet").equals(pq.read_table("whole.parquet"))
    files = pq.read_table("out.parquet")["file"].to_pylist()
    assert len(files) == len(set(files)) == 156
    assert [path.name for path in (recordings / ".out.parquet.parts").iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], "ray"), (["--workers", "0"], "here"), (["--workers", "3"], "ray"), (["--address", "a:1"], "ray")],
)
def test_many_files_go_to_ray_and_few_stay_here(
    recordings: Path, arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(raydec.ray_runtime.predict.os, "cpu_count", lambda: 2)
    ran: list[str] = []
    monkeypatch.setattr(raydec.inference.work, "run_here", lambda *rest: ran.append("here"))
    monkeypatch.setattr(raydec.ray_runtime.predict.Spread, "_on_ray", lambda *rest: ran.append("ray"))
    assert predict("model", "in/a.wav", "--out", "few.csv", *arguments) == 0
    monkeypatch.setattr(raydec.ray_runtime.predict, "FEW_FILES", 6)
    assert predict("model", "in", "--out", "many.csv", *arguments) == 0
    assert ran == ["here" if not arguments else expected, expected]


def test_parts_are_limited_by_files_and_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raydec.inference.work, "_BYTES_PER_PART", 100)
    monkeypatch.setattr(raydec.inference.work, "_FILES_PER_PART", 3)
    sizes = [10, 10, 10, 10, 200, 50, 50, 1]
    files = [str(tmp_path / f"{number}") for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        Path(file).write_bytes(bytes(size))
    sources = [Source(file) for file in [*files, "s3://bucket/x", str(tmp_path / "missing")]]
    parts = list(raydec.inference.work.divide(sources))
    assert [[Path(source.file).name for source in part] for part in parts] == [
        ["0", "1", "2"], ["3"], ["4"], ["5", "6"], ["7", "x", "missing"]
    ]  # fmt: skip
