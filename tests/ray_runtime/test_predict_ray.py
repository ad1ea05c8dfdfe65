"""Predicting on Ray: the same rows as in one process, whatever the workers; nothing lost to kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from docs_support import write_recordings
from model_support import small_model, speech

from raydec.console.terminal import run_entry_point
from raydec.errors import UserError
from raydec.inference.prediction import load
from raydec.inference.rows import Reader, RowOptions, Scorer, unpack_table
from raydec.model.directory import save_model
from raydec.predict import main as predict_main
from raydec.ray_runtime.predict import predict_parts

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")
# Workers cannot import a test module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

NUM_FILES = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory: a model and many recordings of which some are bad or silent at times."""
    place = tmp_path_factory.mktemp("predict")
    before = os.getcwd()
    os.chdir(place)
    save_model(small_model(), "model")
    Path("in").mkdir()
    for number in range(5):
        soundfile.write(f"in/{number}.wav", speech(0.7 + number / 3), 16_000)
    Path("in/bad.wav").write_bytes(b"garbage")
    for number in range(NUM_FILES - 6):
        os.link(f"in/{number % 5}.wav", f"in/link{number:03d}.wav")
    assert predict("--out", "alone.parquet", "--workers", "0") == 0
    yield place
    os.chdir(before)


def predict(*arguments: str) -> int:
    columns = ("--windows", "0.5", "--embeddings", "--distances")
    return run_entry_point(predict_main, ["model", "in", *columns, *arguments])


def assert_same_rows(first: pa.Table, second: pa.Table) -> None:
    assert first.schema == second.schema
    for name in first.column_names:
        ours, theirs = (table[name].combine_chunks() for table in (first, second))
        assert ours.is_null().equals(theirs.is_null()), name
        if pa.types.is_string(ours.type):
            assert ours.equals(theirs), name
        elif pa.types.is_fixed_size_list(ours.type):
            np.testing.assert_allclose(ours.flatten(), theirs.flatten(), atol=1e-5)
        else:
            np.testing.assert_allclose(ours.drop_null(), theirs.drop_null(), atol=1e-5)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Two CPUs, and a GPU that is one in name only."""
    options = {"log_to_driver": False, "include_dashboard": False, "object_store_memory": 2**30}
    ray.init("local", num_cpus=2, num_gpus=1, **options)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("num_workers", ["1", "2"])
def test_the_number_of_workers_changes_no_row(
    folder: Path, num_workers: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    out = f"{num_workers}.parquet"
    assert predict("--out", out, "--workers", num_workers) == 0
    assert_same_rows(pq.read_table(out), pq.read_table("alone.parquet"))
    printed, complaints = capfd.readouterr()
    assert printed.startswith(f"wrote {out}: ") and printed.count("\n") == 1
    assert not complaints


@pytest.mark.usefixtures("folder", "local_ray")
def test_speech_that_the_detector_finds_is_the_same_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("silero_vad", reason="silero-vad is in the vad extra")
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    write_recordings(Path("spoken"))
    # More than one part, so that both workers have one.
    for number in range(33):
        os.link(f"spoken/{number % 3}.wav", f"spoken/link{number:02d}.wav")
    for num_workers in ("0", "2"):
        options = ["--segments", "vad", "--out", f"vad{num_workers}.parquet", "--workers", num_workers]
        assert run_entry_point(predict_main, ["model", "spoken", *options]) == 0
    alone = pq.read_table("vad0.parquet")
    assert_same_rows(pq.read_table("vad2.parquet"), alone)
    assert len(alone) > 36 and not any(alone["error"].to_pylist())


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_readers_and_scorers_apart_as_with_a_gpu_give_the_same_rows(folder: Path) -> None:
    predictor = load("model", "cpu")
    options = RowOptions(window_s=0.5, embeddings=True, distances=True)
    files = [f"in/{name}" for name in ("0.wav", "bad.wav", "3.wav", "4.wav")]
    found: list[pa.Table] = []
    predict_parts(
        [files[:2], files[2:]],
        Reader(predictor.trained, options, str(folder)),
        lambda device: Scorer(predictor.trained, {"cuda": "cpu"}[device], options),
        num_workers=None,
        on_done=lambda content: found.append(unpack_table(content)[0]),
    )
    alone = pq.read_table("alone.parquet")
    alone = alone.filter(pa.array([name in files for name in alone["file"].to_pylist()]))
    order = [("file", "ascending"), ("start", "ascending")]
    assert_same_rows(pa.concat_tables(found).sort_by(order), alone.sort_by(order))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_part_that_kills_its_process_ends_in_words(folder: Path) -> None:
    with pytest.raises(UserError, match="a worker and its replacements died"):
        predict_parts(
            [["in/0.wav"]],
            lambda part: os._exit(1),
            lambda device: lambda content: content,
            num_workers=1,
            on_done=print,
        )


@pytest.mark.slow
def test_a_killed_command_goes_on_with_other_workers(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "raydec.predict", "model", "in", "--out", "ray.parquet"]
    command += ["--windows", "0.5", "--embeddings", "--distances", "--workers"]
    child = subprocess.Popen([*command, "2"])
    end = time.monotonic() + 240
    while not (parts := list(folder.glob(".ray.parquet.parts/part-*"))):
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert len(parts) < 5 and not Path("ray.parquet").exists()
    assert subprocess.run([*command, "1"], timeout=240).returncode == 0
    assert_same_rows(pq.read_table("ray.parquet"), pq.read_table("alone.parquet"))
    printed, complaints = capfd.readouterr()
    assert f"of {NUM_FILES} files already have rows" in printed and printed.count("wrote ") == 1
    assert not complaints
