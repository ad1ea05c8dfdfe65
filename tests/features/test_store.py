"""The feature store: its content, its errors, and resuming after an interruption."""

from __future__ import annotations

import csv
import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpus_support import Spoken, make_store, many, mel_format, write_corpus

from raydec.errors import UserError
from raydec.features.audio import load_audio
from raydec.features.chunk_set import normalizer_of
from raydec.features.mel import mel_frames
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.shards import finished_shard, plan_shards, write_shard
from raydec.features.store import FeatureStore, file_sha256
from raydec.features.store_writer import finish_store, open_folder
from raydec.files import atomic as files

PARAMETERS = MelFrontEnd()


def numpy_statistics(store: FeatureStore, rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    power = np.concatenate([store.frames(int(row)) for row in rows]).astype(np.float64)
    log = np.log(power + 1e-6)
    return {"power": (power.mean(axis=0), power.std(axis=0)), "log": (log.mean(axis=0), log.std(axis=0))}


def test_frames_are_the_float16_of_each_files_mel_power(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "audio", many(20))
    store = make_store(corpus, tmp_path / "store")
    assert len(store) == 20
    for row, path in enumerate(store.utterances["path"].to_pylist()):
        expected = mel_frames(load_audio(path)).numpy()
        assert store.frames(row).dtype == np.float16
        np.testing.assert_array_equal(store.frames(row), expected.astype(np.float16))
        np.testing.assert_allclose(store.frames(row), expected, rtol=4.9e-4, atol=3.0e-8)
        assert store.utterances["duration_s"][row].as_py() == pytest.approx(len(load_audio(path)) / 16_000)
        assert store.utterances["sha256"][row].as_py() == file_sha256(path)
    store.verify()


def test_frames_files_are_plain_arrow_with_one_batch(tmp_path: Path) -> None:
    store = make_store(write_corpus(tmp_path / "audio", many(20)), tmp_path / "store")
    assert sorted(path.name for path in store.path.iterdir()) == [
        "frames-00000.arrow", "frames-00001.arrow", "skipped.csv", "store.json", "utterances.arrow",
    ]  # fmt: skip
    for shard in range(2):
        reader = pa.ipc.open_file(store.path / f"frames-{shard:05d}.arrow")
        assert reader.num_record_batches == 1
        column = reader.get_batch(0)["frames"]
        assert column.type == pa.list_(pa.float16(), 128)
        stored = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, 128)
        np.testing.assert_array_equal(store.shard_frames(shard), stored)


def test_frames_are_a_read_only_view_that_holds_no_file_open(tmp_path: Path) -> None:
    store = make_store(write_corpus(tmp_path / "audio", many(3)), tmp_path / "store")
    open_before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    frames = store.frames(1)
    assert np.shares_memory(frames, store.shard_frames(0))
    assert not frames.flags.writeable
    if open_before:
        assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_store_pickles_as_its_path(tmp_path: Path) -> None:
    store = make_store(write_corpus(tmp_path / "audio", many(3)), tmp_path / "store")
    store.frames(0)
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).frames(2), store.frames(2))


def test_statistics_are_those_of_the_labeled_training_frames_alone(tmp_path: Path) -> None:
    train = many(20)
    alone = make_store(write_corpus(tmp_path / "audio", train), tmp_path / "alone")
    others = [
        *many(5, "validation", "v"),
        *many(5, "test1", "t"),
        *many(18, "unlabeled", "x"),
        Spoken("no-label.wav", arousal=None, seed=77),
    ]
    together = make_store(write_corpus(tmp_path / "audio", [*train, *others]), tmp_path / "together")
    expected = numpy_statistics(together, np.arange(20))
    for store in (alone, together):
        assert store.normalization_source == "labeled_train"
        content = json.loads((store.path / "store.json").read_text())["normalization"]
        for scale, (mean, std) in expected.items():
            np.testing.assert_allclose(content[scale]["mean"], mean, rtol=1e-11)
            np.testing.assert_allclose(content[scale]["std"], std, rtol=1e-11)
            normalizer = normalizer_of(store, mel_format(scale=scale))
            np.testing.assert_allclose(normalizer.mean, mean, rtol=1e-6)
            np.testing.assert_allclose(normalizer.std, std, rtol=1e-6)
    labels = np.array([spoken.arousal for spoken in train])
    assert together.label_stats == alone.label_stats
    assert together.label_stats["arousal"].mean == pytest.approx(labels.mean(), rel=1e-12)
    assert together.label_stats["arousal"].std == pytest.approx(labels.std(), rel=1e-12)
    assert together.label_stats["arousal"].count == 20
    assert "valence" not in together.label_stats


def test_without_labeled_training_speech_the_unlabeled_pool_normalises_with_a_notice(tmp_path: Path) -> None:
    utterances = [*many(4, "unlabeled", "x"), *many(4, "test1", "t")]
    corpus = write_corpus(tmp_path / "audio", utterances)
    store = make_store(corpus, tmp_path / "store")
    assert store.normalization_source == "unlabeled"
    mean, _ = numpy_statistics(store, np.arange(4))["power"]
    np.testing.assert_allclose(normalizer_of(store, mel_format()).mean, mean, rtol=1e-6)
    notices = json.loads((store.path / "store.json").read_text())["notices"]
    assert any("unlabeled utterances" in notice for notice in notices)
    only_tests = make_store(write_corpus(tmp_path / "audio", utterances[4:]), tmp_path / "tests")
    assert only_tests.normalization_source == "all"


def test_rows_and_splits(tmp_path: Path) -> None:
    utterances = [
        Spoken("a.wav", "test1", arousal=None, valence=3.0),
        Spoken("b.wav", "train"),
        Spoken("c.wav", "extra", arousal=None),
        Spoken("d.wav", "train", valence=2.0),
        Spoken("e.wav", "unlabeled", arousal=None),
    ]
    store = make_store(write_corpus(tmp_path / "audio", utterances), tmp_path / "store")
    assert store.splits == ("train", "test1", "unlabeled", "extra")
    assert store.rows().tolist() == [0, 1, 2, 3, 4]
    assert store.rows(split="Train").tolist() == [1, 3]
    assert store.rows(labeled_for=["valence"]).tolist() == [0, 3]
    assert store.rows(labeled_for=["valence", "arousal"]).tolist() == [0, 1, 3]
    assert store.rows(split="test1", labeled_for=["arousal"]).tolist() == []
    assert store.rows(split="validation").tolist() == []


def test_the_same_recording_in_two_splits_is_a_notice(tmp_path: Path) -> None:
    utterances = [
        Spoken("a.wav", "train", seed=1),
        Spoken("b.wav", "test1", seed=1),
        Spoken("c.wav", "train", seed=1),
        Spoken("d.wav", "test1", seed=2),
    ]
    store = make_store(write_corpus(tmp_path / "audio", utterances), tmp_path / "store")
    (notice,) = json.loads((store.path / "store.json").read_text())["notices"]
    assert notice.startswith("1 recording is byte-identical")
    assert "b.wav (test1) = a.wav (train)" in notice
    assert len(store) == 4


def test_bad_files_are_skipped_with_their_reason_and_the_rest_is_kept(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    (audio / "u003.wav").write_bytes(b"")
    (audio / "u007.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    corpus = write_corpus(audio, many(20))
    store = make_store(corpus, tmp_path / "store")
    assert store.utterances["utterance_id"].to_pylist() == [
        spoken.name for spoken in many(20) if spoken.name not in ("u003.wav", "u007.wav")
    ]
    with open(store.path / "skipped.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "reason"]
    assert [(Path(name).name, reason.split(" (")[0].split(",")[0]) for name, reason in rows[1:]] == [
        ("u003.wav", "the file is empty"),
        ("u007.wav", "a Git LFS pointer"),
    ]
    np.testing.assert_array_equal(
        store.frames(3), mel_frames(load_audio(audio / "u004.wav")).numpy().astype(np.float16)
    )


def test_a_store_of_nothing_is_refused(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    for spoken in many(3):
        (audio / spoken.name).write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"no usable audio in corpus tiny: 3 .*skipped\.csv"):
        make_store(write_corpus(audio, many(3)), tmp_path / "store")
    assert (tmp_path / "store" / "skipped.csv").exists()
    with pytest.raises(UserError, match="unfinished"):
        FeatureStore.open(tmp_path / "store")


def test_shards_do_not_depend_on_the_order_they_are_written_in(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "audio", [*many(40), *many(10, "unlabeled", "x")])
    forward = make_store(corpus, tmp_path / "forward")
    backward = tmp_path / "backward"
    open_folder(backward)
    plans = plan_shards(corpus.table)
    assert len(plans) == 4
    for plan in reversed(plans):
        write_shard(pickle.loads(pickle.dumps(plan)), backward, PARAMETERS)
    finish_store(backward, corpus, plans, PARAMETERS)
    for path in sorted(forward.path.iterdir()):
        assert path.read_bytes() == (backward / path.name).read_bytes(), path.name


@pytest.mark.parametrize(("utterances", "shards"), [(1, 1), (16, 1), (17, 2), (2000, 63), (33_000, 65)])
def test_shard_sizes(tmp_path: Path, utterances: int, shards: int) -> None:
    ids = [f"{number}" for number in range(utterances)]
    table = pa.table(
        {
            "utterance_id": ids,
            "path": [f"/nowhere/{name}" for name in ids],
            "split": ["train"] * utterances,
            **{name: pa.nulls(utterances, pa.float64()) for name in ("arousal", "dominance", "valence")},
        }
    )
    plans = plan_shards(table)
    assert len(plans) == shards
    assert [u.utterance_id for plan in plans for u in plan.utterances] == ids


def test_a_finished_shard_is_found_again_until_something_changes(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "audio", many(20))
    first, second = plan_shards(corpus.table)
    result = write_shard(first, tmp_path, PARAMETERS)
    found = finished_shard(first, tmp_path, PARAMETERS)
    assert found is not None and found.to_json() == result.to_json()
    assert finished_shard(second, tmp_path, PARAMETERS) is None
    assert finished_shard(first, tmp_path, MelFrontEnd(n_mels=64)) is None
    os.utime(tmp_path / "audio" / "u005.wav", ns=(0, 0))
    assert finished_shard(plan_shards(corpus.table)[0], tmp_path, PARAMETERS) is None
    with open(tmp_path / first.frames_file, "ab") as file:
        file.truncate(100)
    assert finished_shard(first, tmp_path, PARAMETERS) is None


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from corpus_support import many, mel_format, write_corpus
import raydec.features.shards as shards
from raydec.features.mel_front_end import MelFrontEnd

decode, calls = shards.measure_audio, []
def decode_until_killed(path, *arguments):
    calls.append(path)
    if len(calls) == 20:
        os.kill(os.getpid(), 9)
    return decode(path, *arguments)
shards.measure_audio = decode_until_killed
folder = Path(sys.argv[2])
for plan in shards.plan_shards(write_corpus(folder / "audio", many(40)).table):
    shards.write_shard(plan, folder / "store", MelFrontEnd())
"""


def test_a_killed_writer_leaves_finished_shards_and_no_half_one(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "audio", many(40))
    folder = tmp_path / "store"
    open_folder(folder)
    killed = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), str(tmp_path)]
    assert subprocess.run(killed, check=False).returncode == -9
    plans = plan_shards(corpus.table)
    done = [finished_shard(plan, folder, PARAMETERS) is not None for plan in plans]
    assert done == [True, False, False]
    assert not (folder / plans[1].frames_file).exists()
    assert any(path.name.startswith(files.TEMPORARY_PREFIX) for path in folder.iterdir())
    for plan in plans[1:]:
        write_shard(plan, folder, PARAMETERS)
    finish_store(folder, corpus, plans, PARAMETERS)
    straight = make_store(corpus, tmp_path / "straight")
    assert sorted(path.name for path in folder.iterdir()) == sorted(p.name for p in straight.path.iterdir())
    assert all(path.read_bytes() == (folder / path.name).read_bytes() for path in straight.path.iterdir())


class FullDisk:
    """An open that works until this many bytes were written."""

    def __init__(self, room: int) -> None:
        self.room = room

    def publish(self, file: object, target: Path) -> None:
        self.room -= os.fstat(file.fileno()).st_size  # type: ignore[attr-defined]
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_publish(file, target)  # type: ignore[arg-type]


real_publish = files.publish


def test_a_full_disk_is_explained_and_finished_shards_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "audio", many(40))
    folder = tmp_path / "store"
    open_folder(folder)
    plans = plan_shards(corpus.table)
    monkeypatch.setattr(files, "publish", FullDisk(200_000).publish)
    write_shard(plans[0], folder, PARAMETERS)
    with pytest.raises(UserError, match=r"no space left in .*store .*free some and run .* again"):
        for plan in plans[1:]:
            write_shard(plan, folder, PARAMETERS)
    assert finished_shard(plans[0], folder, PARAMETERS) is not None
    assert not any(path.name.startswith(files.TEMPORARY_PREFIX) for path in folder.iterdir())


def test_a_file_this_machine_cannot_see_stops_the_shard(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "audio", many(4))
    (plan,) = plan_shards(corpus.table)
    (tmp_path / "audio" / "u002.wav").unlink()
    with pytest.raises(UserError, match=r"u002\.wav is not visible on .* all nodes mount"):
        write_shard(plan, tmp_path, PARAMETERS)


def test_mel_power_beyond_float16_is_clamped(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "audio", [Spoken("a.wav")])
    (plan,) = plan_shards(corpus.table)
    loud = MelFrontEnd(peak_normalize=False, n_fft=16_384)
    import soundfile

    soundfile.write(tmp_path / "audio" / "a.wav", 1000 * np.sin(np.arange(20_000)), 16_000, subtype="FLOAT")
    write_shard(plan, tmp_path, loud)
    stored = pa.ipc.open_file(tmp_path / plan.frames_file).get_batch(0)["frames"].flatten()
    values = stored.to_numpy(zero_copy_only=False)
    assert np.isfinite(values).all() and values.max() == 65504


def break_store(folder: Path, name: str, change: object) -> None:
    content = json.loads((folder / "store.json").read_text())
    target = content
    *parents, key = name.split(".")
    for parent in parents:
        target = target[int(parent)] if isinstance(target, list) else target[parent]
    target[key] = change
    (folder / "store.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("schema_version", 99, "schema version 99, but this raydec reads 1"),
        ("features.n_mels", 64, "n_mels 64 instead of 128"),
        ("features.window", 64, "window"),
        ("shards", None, "store.json"),
        ("corpus", {}, "store.json"),
        ("labels", {"arousal": {"mean": 1.0}}, "store.json"),
        ("shards.0.file", "../../../etc/passwd", "etc/passwd: it is missing"),
        ("shards.0.num_frames", 10, "outside its frames file"),
        ("shards.0.num_frames", 10**6, "shorter than"),
    ],
)
def test_open_names_what_is_wrong(tmp_path: Path, name: str, change: object, message: str) -> None:
    store = make_store(write_corpus(tmp_path / "audio", many(3)), tmp_path / "store")
    break_store(store.path, name, change)
    with pytest.raises(UserError, match=message):
        FeatureStore.open(store.path)


def test_open_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        FeatureStore.open(tmp_path / "absent")
    with pytest.raises(UserError, match="not a feature store"):
        FeatureStore.open(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        FeatureStore.open(tmp_path)


@pytest.mark.parametrize("name", ["frames-00000.arrow", "utterances.arrow"])
def test_missing_and_altered_files_are_named(tmp_path: Path, name: str) -> None:
    store = make_store(write_corpus(tmp_path / "audio", many(3)), tmp_path / "store")
    content = bytearray((store.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (store.path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"damaged at {name}: its checksum"):
        store.verify()
    (store.path / name).unlink()
    with pytest.raises(UserError, match=f"damaged at {name}"):
        FeatureStore.open(store.path)


def test_a_folder_of_other_files_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"thesis\.tex"):
        open_folder(tmp_path)
