"""Manifests in every format and spelling, and paths that must not leave the audio root."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydec.corpus.readers import read_corpus
from raydec.corpus.table import Corpus
from raydec.errors import UserError

ENTRIES: list[dict[str, Any]] = [
    {"file": "a.wav", "arousal": 1.5, "valence": 2.0, "dominance": 7.0, "speaker": "s1", "split": "train"},
    {"file": "sub/b.flac", "arousal": 3.25, "valence": None, "dominance": 1, "speaker": None, "split": "dev"},
    {
        "file": "sub/deep/c d,e.ogg",
        "arousal": None,
        "valence": None,
        "dominance": None,
        "speaker": "s3",
        "split": "",
    },
]
FILES = tuple(str(entry["file"]) for entry in ENTRIES)
_WHOLE = {"start_s": None, "end_s": None}


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def _write(path: Path, entries: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(entries)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(entries), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def _rows(corpus: Corpus) -> dict[str, dict[str, Any]]:
    return {row["utterance_id"]: row for row in corpus.table.to_pylist()}


def _reasons(corpus: Corpus) -> dict[str, str]:
    return {skip.file: skip.reason for skip in corpus.skipped}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_every_format_gives_the_same_table(tmp_path: Path, suffix: str) -> None:
    folder = _touch(tmp_path / "corpus", *FILES)
    _write(folder / f"list{suffix}", ENTRIES)
    corpus = read_corpus(folder)
    assert corpus.format == "manifest" and corpus.name == "corpus"
    assert corpus.skipped == () and corpus.warnings == ()
    root = str(folder.resolve())
    assert corpus.table.to_pylist() == [
        {"utterance_id": "a.wav", "path": f"{root}/a.wav", "speaker": "s1", "split": "train", "arousal": 1.5,
         "dominance": 7.0, "valence": 2.0, "emotion": None, "gender": None, **_WHOLE},
        {"utterance_id": "sub/b.flac", "path": f"{root}/sub/b.flac", "speaker": None, "split": "validation",
         "arousal": 3.25, "dominance": 1.0, "valence": None, "emotion": None, "gender": None, **_WHOLE},
        {"utterance_id": FILES[2], "path": f"{root}/{FILES[2]}", "speaker": "s3", "split": "unlabeled",
         "arousal": None, "dominance": None, "valence": None, "emotion": None, "gender": None, **_WHOLE},
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["file", "path", "filename", "file_name", "FileName", "audio", "File Path"])
@pytest.mark.parametrize(
    "names",
    [
        ("arousal", "valence", "dominance", "speaker", "split", "emotion", "gender"),
        ("act", "val", "dom", "spk", "partition", "EmoClass", "Sex"),
        ("EmoAct", "EmoVal", "EmoDom", "SpkrID", "Split_Set", "emotion", "Gender"),
        ("activation", "VALENCE", "Dominance", "speaker_id", "subset", "Emotion", "gender"),
    ],
)
def test_every_column_name_is_understood(tmp_path: Path, file: str, names: tuple[str, ...]) -> None:
    folder = _touch(tmp_path / "corpus", "a.wav")
    cells: tuple[Any, ...] = ("a.wav", 1.5, 2.5, 3.5, "s1", "Train", "happy", "Female")
    _write(folder / "list.csv", [dict(zip((file, *names), cells, strict=True))])
    row = read_corpus(folder, format="manifest").table.drop_columns(["path"]).to_pylist()[0]
    assert row == {
        "utterance_id": "a.wav", "speaker": "s1", "split": "train", "arousal": 1.5, "dominance": 3.5,
        "valence": 2.5, "emotion": "happy", "gender": "Female", **_WHOLE,
    }  # fmt: skip


def test_two_columns_for_one_attribute_are_refused(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.wav")
    _write(folder / "list.csv", [{"file": "a.wav", "arousal": 1, "EmoAct": 2, "split": "train"}])
    with pytest.raises(UserError, match=r"list\.csv: columns 'arousal' and 'EmoAct' both mean arousal"):
        read_corpus(folder)


def test_two_columns_of_files_are_read_by_preference_with_a_warning(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.wav")
    _write(folder / "list.csv", [{"audio": "x", "file": "a.wav", "arousal": 1, "split": "train"}])
    corpus = read_corpus(folder)
    assert list(_rows(corpus)) == ["a.wav"]
    assert corpus.warnings == ("list.csv has several columns of file names; 'file' was read",)


def test_a_table_without_file_column_is_refused_with_what_it_has(tmp_path: Path) -> None:
    labels = _write(tmp_path / "list.csv", [{"clip": "a.wav", "arousal": 1}])
    with pytest.raises(UserError, match=r"no column of file names among 'clip, arousal'; name it file"):
        read_corpus(tmp_path, labels=labels)


def test_paths_are_relative_to_the_audio_folder_when_it_is_named(tmp_path: Path) -> None:
    audio = _touch(tmp_path / "audio", *FILES)
    labels = _write(tmp_path / "elsewhere" / "list.csv", ENTRIES)
    (tmp_path / "corpus").mkdir()
    corpus = read_corpus(tmp_path / "corpus", labels=labels, audio=audio)
    assert list(_rows(corpus)) == list(FILES)


def test_without_audio_folder_paths_start_at_the_manifest_then_at_the_corpus(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "corpus", "wav/a.wav", "lists/b.wav", "wav/c.wav")
    entries = [{"file": name, "act": 2, "split": "train"} for name in ("wav/a.wav", "b.wav", "../wav/c.wav")]
    labels = _write(folder / "lists" / "list.csv", entries)
    assert list(_rows(read_corpus(folder, labels=labels))) == ["wav/a.wav", "lists/b.wav", "wav/c.wav"]


def test_the_corpus_may_be_named_by_its_manifest(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "corpus", *FILES)
    manifest = _write(folder / "list.csv", ENTRIES)
    _write(folder / "other.csv", ENTRIES)
    corpus = read_corpus(manifest)
    assert corpus.name == "corpus" and list(_rows(corpus)) == list(FILES)
    with pytest.raises(UserError, match=r"omit --labels .*list\.csv"):
        read_corpus(manifest, labels=manifest)


def test_several_possible_manifests_are_not_guessed_between(tmp_path: Path) -> None:
    folder = _touch(tmp_path, *FILES)
    _write(folder / "one.csv", ENTRIES)
    _write(folder / "two.jsonl", ENTRIES)
    _write(folder / "scores.csv", [{"epoch": 1}])
    with pytest.raises(UserError, match=r"several tables .*\(one\.csv, two\.jsonl\); use --labels"):
        read_corpus(folder)
    _write(folder / "manifest.csv", ENTRIES[:1])
    assert read_corpus(folder).table.num_rows == 1


# --- paths that leave the root ------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> Path:
    """A corpus beside a file that no manifest in it may reach."""
    _touch(tmp_path, "secret.wav", "corpus-evil/secret.wav")
    folder = _touch(tmp_path / "corpus", "ok.wav", "sub/ok.wav")
    os.symlink(tmp_path / "secret.wav", folder / "link.wav")
    os.symlink(tmp_path, folder / "up")
    os.symlink(folder / "sub" / "ok.wav", folder / "inner.wav")
    return folder


@pytest.mark.parametrize(
    "name",
    ["../secret.wav", "sub/../../secret.wav", "/{outside}/secret.wav", "link.wav", "up/secret.wav",
     "../corpus-evil/secret.wav", "..\\secret.wav", "sub\\..\\..\\secret.wav", "../absent.wav"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_path_that_leaves_the_root_is_left_out(guarded: Path, name: str, suffix: str) -> None:
    name = name.replace("/{outside}", str(guarded.parent))
    entries = [{"file": file, "arousal": 2.0, "split": "train"} for file in ("ok.wav", name)]
    _write(guarded / f"list{suffix}", entries)
    corpus = read_corpus(guarded)
    assert list(_rows(corpus)) == ["ok.wav"]
    assert _reasons(corpus)[name].startswith(f"its path leaves {guarded.resolve()}; ")
    assert "--audio" in _reasons(corpus)[name]


def test_paths_that_stay_inside_are_fine_however_written(guarded: Path) -> None:
    names = ("./ok.wav", "sub\\ok.wav", str(guarded / "inner.wav"), "up/corpus/ok.wav", "sub/../ok.wav")
    _write(guarded / "list.csv", [{"file": name, "arousal": 2.0, "split": "train"} for name in names])
    corpus = read_corpus(guarded)
    assert corpus.skipped == ()
    assert {name: row["path"] for name, row in _rows(corpus).items()} == {
        "ok.wav": str(guarded.resolve() / "ok.wav"),
        "sub/ok.wav": str(guarded.resolve() / "sub" / "ok.wav"),
    }
    assert corpus.warnings[0] == "identical rows were read once: ok.wav, sub/ok.wav"


def test_the_audio_folder_is_the_fence(guarded: Path) -> None:
    labels = _write(guarded / "list.csv", [{"file": "secret.wav", "arousal": 2.0, "split": "train"}])
    assert list(_rows(read_corpus(guarded, labels=labels, audio=guarded.parent))) == ["secret.wav"]
    with pytest.raises(UserError, match="no audio file at this path"):
        read_corpus(guarded, labels=labels, audio=guarded / "sub")


# --- rows that cannot be used -------------------------------------------------------------------------


def test_rows_are_left_out_each_with_its_reason(tmp_path: Path) -> None:
    folder = _touch(tmp_path, *(f"{letter}.wav" for letter in "abcdefg"), "Ä.wav")
    good = {"file": "a.wav", "arousal": 2.0, "split": "train"}
    entries = [
        good,
        {**good, "file": "missing.wav"},
        {**good, "file": ""},
        {**good, "file": None},
        {**good, "file": 7},
        {**good, "file": {"path": "a.wav"}},
        {**good, "file": "nul\0.wav"},
        {**good, "file": "."},
        {**good, "file": "b.wav", "arousal": 8},
        {**good, "file": "c.wav", "arousal": True},
        {**good, "file": "d.wav", "arousal": [2.0]},
        {**good, "file": "e.wav", "split": None},
        {**good, "file": "f.wav", "split": "train/1"},
        {**good, "file": "g.wav", "arousal": float("nan"), "split": None},
        {**good, "file": "\ud800.wav"},
        {**good, "file": unicodedata.normalize("NFD", "ä.WAV"), "speaker": "x\ud800"},
    ]
    text = "".join(json.dumps(entry) + "\n" for entry in entries) + '\n{"file": \n[1]\n'
    (folder / "list.jsonl").write_text(text)
    corpus = read_corpus(folder)
    assert set(_rows(corpus)) == {"a.wav", "g.wav", "Ä.wav"}
    assert _rows(corpus)["g.wav"]["split"] == "unlabeled"
    assert _reasons(corpus) == {
        "list.jsonl line 18": "not a JSON object",
        "list.jsonl line 19": "not a JSON object",
        "missing.wav": "no audio file at this path",
        "list.jsonl line 3": "has no file name",
        "list.jsonl line 4": "has no file name",
        "list.jsonl line 5": "has no file name",
        "list.jsonl line 6": "has no file name",
        "nul\0.wav": "its path contains a NUL character",
        ".": "no audio file at this path",
        "\\ud800.wav": "no audio file at this path",
        "b.wav": "arousal 8.0 is outside 1 to 7; correct the label or set --label-range",
        "c.wav": "arousal True is not a number",
        "d.wav": "arousal [2.0] is not a number",
        "e.wav": "it has labels but no split; name one, or 'unlabeled'",
        "f.wav": "split name 'train/1' may only contain letters, digits, '_' and '-'; "
        "use for example Train, Validation, Test or unlabeled",
    }


def test_repeated_rows_are_settled_by_file_not_by_spelling(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.wav", "b.wav")
    row = {"arousal": 2.0, "split": "train"}
    entries = [{"file": "a.wav", **row}, {"file": "./a.wav", **row}, {"file": "b.wav", **row},
               {"file": "./b.wav", **row, "arousal": 3.0}]  # fmt: skip
    _write(folder / "list.csv", entries)
    corpus = read_corpus(folder)
    assert list(_rows(corpus)) == ["a.wav"]
    assert corpus.warnings == ("identical rows were read once: a.wav",)
    assert _reasons(corpus) == {"b.wav": "2 rows disagree: arousal is 2.0 and 3.0; keep one row"}


def test_a_name_that_is_not_utf8_on_disk_is_left_out(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "corpus", "a.wav")
    (folder / os.fsdecode(b"\xff.wav")).write_bytes(b"")
    (folder / "list.jsonl").write_text(
        '{"file": "a.wav", "split": "train", "act": 2}\n{"file": "\\udcff.wav", "split": "train", "act": 3}\n'
    )
    corpus = read_corpus(folder)
    assert list(_rows(corpus)) == ["a.wav"]
    assert _reasons(corpus) == {"\\udcff.wav": "its path is not valid UTF-8; rename it"}
    assert _reasons(read_corpus(folder, format="folder")) == {
        "\\udcff.wav": "its path is not valid UTF-8; rename it"
    }


# --- splits -------------------------------------------------------------------------------------------


def test_labels_without_split_column_are_a_user_error_with_the_remedy(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.wav", "b.wav")
    _write(folder / "list.csv", [{"file": "a.wav", "arousal": None}, {"file": "b.wav", "arousal": 2}])
    with pytest.raises(
        UserError, match=r"no labeled row has a split \(the first is b\.wav\); add a column 'split' with"
    ):
        read_corpus(folder)


def test_without_labels_no_split_is_needed(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.wav", "b,c.wav")
    (folder / "list.csv").write_text("file\na.wav\nb,c.wav\n")
    corpus = read_corpus(folder)
    assert corpus.table["split"].to_pylist() == ["unlabeled"] * 2 and corpus.skipped == ()


# --- Hugging Face AudioFolder -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_audiofolder_with_one_metadata_file_takes_splits_from_folders(tmp_path: Path, suffix: str) -> None:
    folder = _touch(tmp_path / "hf", "train/1.mp3", "data/validation/1.mp3", "test/x/1.mp3", "rest/2.mp3")
    names = ("train/1.mp3", "data/validation/1.mp3", "test/x/1.mp3")
    _write(
        folder / f"metadata{suffix}",
        [{"file_name": name, "arousal": 2.0 + i} for i, name in enumerate(names)],
    )
    corpus = read_corpus(folder)
    assert corpus.format == "manifest"
    assert {name: row["split"] for name, row in _rows(corpus).items()} == {
        names[0]: "train", names[1]: "validation", names[2]: "test",
    }  # fmt: skip


@pytest.mark.parametrize("parent", ["", "data/"])
def test_audiofolder_with_metadata_in_every_split(tmp_path: Path, parent: str) -> None:
    folder = _touch(tmp_path / "hf", f"{parent}train/0.wav", f"{parent}test/0.wav")
    _write(folder / f"{parent}train/metadata.csv", [{"file_name": "0.wav", "valence": 2}])
    _write(folder / f"{parent}test/metadata.csv", [{"file_name": "0.wav", "valence": 5, "speaker": "s"}])
    corpus = read_corpus(folder)
    assert {name: (row["split"], row["valence"]) for name, row in _rows(corpus).items()} == {
        f"{parent}train/0.wav": ("train", 2.0), f"{parent}test/0.wav": ("test", 5.0),
    }  # fmt: skip


def test_a_split_column_is_followed_rather_than_folders(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "hf", "train/0.wav")
    _write(folder / "metadata.csv", [{"file_name": "train/0.wav", "valence": 2, "split": "test"}])
    assert read_corpus(folder).table["split"].to_pylist() == ["test"]


# --- Parquet ------------------------------------------------------------------------------------------


def test_parquet_types_do_not_matter(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.wav", "b.wav")
    table = pa.table(
        {
            "file": pa.array(["a.wav", "b.wav"]).dictionary_encode(),
            "arousal": pa.array([2, None], pa.int8()),
            "valence": pa.array([2.5, float("nan")], pa.float32()),
            "dominance": pa.array(["3,5", "-"]),
            "speaker": pa.array([30.0, None]),
            "split": pa.array(["Train", "Test1"], pa.large_string()),
            "emotion": pa.array([1, 2]),
            "audio": pa.array([{"bytes": b"x", "path": "x"}] * 2),
        }
    )
    pq.write_table(table, folder / "list.parquet")
    first, second = read_corpus(folder).table.to_pylist()
    assert [first[name] for name in ("arousal", "valence", "dominance", "speaker", "emotion")] == [
        2,
        2.5,
        3.5,
        "30",
        "1",
    ]
    assert [second[name] for name in ("arousal", "valence", "dominance", "speaker")] == [None] * 4


def test_embedded_audio_and_broken_parquet_are_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside.parquet"
    pq.write_table(pa.table({"audio": pa.array([{"bytes": b"x", "path": "x"}]), "arousal": [1.0]}), inside)
    with pytest.raises(UserError, match=r"inside\.parquet has embedded audio; write the audio to files"):
        read_corpus(tmp_path, labels=inside, format="manifest")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match=r"cannot read .*broken\.parquet as Parquet"):
        read_corpus(tmp_path, labels=broken)


def test_no_manifest_is_said_so(tmp_path: Path) -> None:
    _touch(tmp_path, "a.wav")
    with pytest.raises(UserError, match=r"no manifest \(\.csv, \.tsv.*use --labels"):
        read_corpus(tmp_path, format="manifest")
