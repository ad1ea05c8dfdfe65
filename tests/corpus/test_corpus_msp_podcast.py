"""The MSP-Podcast layout in every shape that releases and people give it."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raydec.corpus.readers import read_corpus
from raydec.corpus.table import SCHEMA, Corpus
from raydec.errors import UserError

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
ROWS = (
    "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1",
    "MSP-PODCAST_0001_0009.wav,N,3.777778,3.555556,3.777778,39,Male,Train",
    "MSP-PODCAST_0002_0033_0001.wav,X,7.0,1.0,5.5,Unknown,Unknown,Development",
)
NAMES = tuple(row.split(",")[0] for row in ROWS)


def _corpus(
    folder: Path,
    *,
    rows: tuple[str, ...] = ROWS,
    header: str = HEADER,
    files: tuple[str, ...] | None = None,
    labels: str = "Labels/labels_consensus.csv",
    audio: str = "Audios",
    partitions: str | None = None,
) -> Path:
    """Write a corpus; by default every row has its file."""
    (folder / audio).mkdir(parents=True)
    for name in files if files is not None else [row.split(",")[0] for row in rows]:
        path = folder / audio / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (folder / labels).parent.mkdir(parents=True, exist_ok=True)
    (folder / labels).write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    if partitions is not None:
        (folder / "Partitions.txt").write_text(partitions, encoding="utf-8")
    return folder


def _rows(corpus: Corpus) -> dict[str, dict[str, Any]]:
    return {row["utterance_id"]: row for row in corpus.table.to_pylist()}


def _reasons(corpus: Corpus) -> dict[str, str]:
    return {skip.file: skip.reason for skip in corpus.skipped}


def test_a_row_becomes_an_utterance_with_nothing_swapped(tmp_path: Path) -> None:
    corpus = read_corpus(_corpus(tmp_path / "msp"))
    assert (corpus.name, corpus.format, corpus.synthetic) == ("msp", "msp-podcast", False)
    assert corpus.table.schema == SCHEMA
    assert corpus.skipped == () and corpus.warnings == ()
    assert _rows(corpus)[NAMES[1]] == {
        "utterance_id": NAMES[1],
        "path": str((tmp_path / "msp" / "Audios" / NAMES[1]).resolve()),
        "speaker": "39",
        "split": "train",
        "arousal": 3.777778,
        "dominance": 3.777778,
        "valence": 3.555556,
        "emotion": "N",
        "gender": "Male",
        "start_s": None,
        "end_s": None,
    }
    unknown = _rows(corpus)[NAMES[2]]
    assert (unknown["speaker"], unknown["gender"], unknown["emotion"]) == (None, None, "X")
    assert (unknown["arousal"], unknown["valence"], unknown["dominance"]) == (7.0, 1.0, 5.5)


@pytest.mark.parametrize(
    "labels", ["Labels/labels_concensus.csv", "label/labels_consensus.csv", "labels_consensus.csv"]
)
@pytest.mark.parametrize("audio", ["Audios", "Audio", "Audios/Audios", "audios"])
def test_every_known_place_of_labels_and_audio(tmp_path: Path, labels: str, audio: str) -> None:
    corpus = read_corpus(_corpus(tmp_path / "msp", labels=labels, audio=audio))
    assert corpus.format == "msp-podcast"
    assert set(_rows(corpus)) == set(NAMES) and not corpus.skipped


@pytest.mark.parametrize("name", ["labels_consensus.json", "labels_concensus.json"])
def test_json_labels_say_the_same_as_csv(tmp_path: Path, name: str) -> None:
    from_csv = read_corpus(_corpus(tmp_path / "a" / "msp"))
    folder = _corpus(tmp_path / "b" / "msp")
    names = HEADER.split(",")[1:]
    entries = {}
    for row in ROWS:
        file, *cells = row.split(",")
        entries[file] = {
            k: float(v) if k in ("EmoAct", "EmoVal", "EmoDom") else v
            for k, v in zip(names, cells, strict=True)
        }
    (folder / "Labels" / "labels_consensus.csv").unlink()
    (folder / "Labels" / name).write_text(json.dumps(entries))
    from_json = read_corpus(folder)
    assert from_json.table.drop_columns(["path"]).equals(from_csv.table.drop_columns(["path"]))


def test_csv_is_preferred_to_json(tmp_path: Path) -> None:
    folder = _corpus(tmp_path / "msp")
    (folder / "Labels" / "labels_consensus.json").write_text("not even JSON")
    assert read_corpus(folder).table.num_rows == 3


def test_repeated_keys_in_json_count_as_rows(tmp_path: Path) -> None:
    folder = _corpus(tmp_path / "msp", rows=(), files=("a.wav", "b.wav"))
    (folder / "Labels" / "labels_consensus.csv").unlink()
    labels = folder / "Labels" / "labels_consensus.json"
    entries = [
        f'"{name}": {{"EmoAct": {label}, "Split_Set": "Train"}}'
        for name, label in (("a.wav", 2), ("b.wav", 3), ("a.wav", 4))
    ]
    labels.write_text(f"{{{', '.join(entries)}}}")
    corpus = read_corpus(folder)
    assert set(_rows(corpus)) == {"b.wav"}
    assert "2 rows disagree: arousal is 2.0 and 4.0" in _reasons(corpus)["a.wav"]


@pytest.mark.parametrize(
    ("release_names", "expected"),
    [
        (("Train", "Validation", "Test"), ["train", "validation", "test"]),
        (("Train", "Validation", "Test1", "Test2"), ["train", "validation", "test1", "test2"]),
        (
            ("Train", "Development", "Test1", "Test2", "Test3"),
            ["train", "validation", "test1", "test2", "test3"],
        ),
        ((" train ", "DEVELOPMENT", "Test 1"), ["train", "validation", "test1"]),
    ],
    ids=["1.6", "1.8", "1.11 to 2.0", "carelessly written"],
)
def test_split_names_of_every_release(
    tmp_path: Path, release_names: tuple[str, ...], expected: list[str]
) -> None:
    rows = tuple(f"f{i}.wav,N,{i + 1},2,3,{i},Male,{name}" for i, name in enumerate(release_names))
    assert read_corpus(_corpus(tmp_path / "msp", rows=rows)).table["split"].to_pylist() == expected


def test_attributes_may_be_missing_cell_by_cell(tmp_path: Path) -> None:
    cells = ("", "-", "?", "NaN", " nan ", "N/A", "None", "null")
    rows = tuple(f"f{i}.wav,N,{cell},4.0,{cell},{i},Male,Train" for i, cell in enumerate(cells))
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=rows))
    assert corpus.table.num_rows == len(cells) and not corpus.skipped
    assert corpus.table["arousal"].null_count == corpus.table["dominance"].null_count == len(cells)
    assert corpus.table["valence"].to_pylist() == [4.0] * len(cells)


def test_attribute_columns_may_be_missing_altogether(tmp_path: Path) -> None:
    corpus = read_corpus(
        _corpus(
            tmp_path / "msp", header="FileName,EmoAct,Split_Set", rows=("a.wav,2.5,Train", "b.wav,3,Test1")
        )
    )
    assert corpus.table["arousal"].to_pylist() == [2.5, 3.0]
    for name in ("dominance", "valence", "speaker", "emotion", "gender"):
        assert corpus.table[name].null_count == 2


@pytest.mark.parametrize("value", ["0.99", "7.000001", "-1", "inf", "1e9"])
def test_a_label_outside_the_scale_loses_its_row(tmp_path: Path, value: str) -> None:
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=(*ROWS, f"bad.wav,N,3,{value},3,1,Male,Train")))
    assert set(_rows(corpus)) == set(NAMES)
    assert _reasons(corpus) == {
        "bad.wav": f"valence {float(value)!r} is outside 1 to 7; correct the label or set --label-range"
    }


def test_the_scale_can_be_another(tmp_path: Path) -> None:
    folder = _corpus(
        tmp_path / "msp", rows=("a.wav,N,0.1,0,1,1,Male,Train", "b.wav,N,0.5,0,1.5,1,Male,Train")
    )
    corpus = read_corpus(folder, label_range=(0, 1))
    assert set(_rows(corpus)) == {"a.wav"} and set(_reasons(corpus)) == {"b.wav"}
    with pytest.raises(UserError, match="label range 7 to 1"):
        read_corpus(folder, label_range=(7, 1))


@pytest.mark.parametrize("value", ["high", "1_5", "3.5.1", "4 5"])
def test_a_label_that_is_no_number_loses_its_row(tmp_path: Path, value: str) -> None:
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=(*ROWS, f"bad.wav,N,{value},3,3,1,Male,Train")))
    assert _reasons(corpus) == {"bad.wav": f"arousal '{value}' is not a number"}


def test_identical_rows_are_read_once_with_a_warning(tmp_path: Path) -> None:
    corpus = read_corpus(
        _corpus(tmp_path / "msp", rows=(*ROWS, ROWS[1], ROWS[1].replace("3.777778", "3.7777780")))
    )
    assert sorted(_rows(corpus)) == sorted(NAMES) and not corpus.skipped
    assert corpus.warnings == (f"identical rows were read once: {NAMES[1]}",)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("d.wav,N,2,3,3,1,Male,Train", "2 rows disagree: arousal is 3.0 and 2.0; keep one row"),
        ("d.wav,N,3,3,3,1,Male,Test1", "2 rows disagree: split is 'train' and 'test1'; keep one row"),
        ("d.wav,N,9,3,3,1,Male,Train", "2 rows disagree, and in one arousal 9.0 is outside 1 to 7"),
    ],
)
def test_conflicting_rows_are_all_left_out(tmp_path: Path, other: str, reason: str) -> None:
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=(*ROWS, "d.wav,N,3,3,3,1,Male,Train", other)))
    assert set(_rows(corpus)) == set(NAMES)
    assert list(_reasons(corpus)) == ["d.wav"] and _reasons(corpus)["d.wav"].startswith(reason)


def test_a_row_without_file_and_a_file_without_row(tmp_path: Path) -> None:
    files = (NAMES[0], "extra.wav", "nested/extra2.WAV", "._extra.wav", ".DS_Store", "notes.txt")
    corpus = read_corpus(_corpus(tmp_path / "msp", files=files))
    assert set(_rows(corpus)) == {NAMES[0]}
    no_row = "no label row; pass its folder with --unlabeled to use it unlabeled"
    assert _reasons(corpus) == {
        NAMES[1]: "no audio file of this name",
        NAMES[2]: "no audio file of this name",
        "extra.wav": no_row,
        "nested/extra2.WAV": no_row,
    }


def test_files_without_row_become_unlabeled_when_asked_for(tmp_path: Path) -> None:
    folder = _corpus(tmp_path / "msp", files=(*NAMES, "extra.wav"))
    corpus = read_corpus(folder, unlabeled=[folder / "Audios"])
    assert _rows(corpus)["extra.wav"]["split"] == "unlabeled"
    assert corpus.table.num_rows == 4 and not corpus.skipped
    assert corpus.warnings == (f"3 files under {folder / 'Audios'} are already in the corpus; read once",)


def test_names_match_without_case_and_in_either_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Müller.wav") for form in ("NFC", "NFD"))
    rows = (
        f"{composed},N,1,1,1,1,Male,Train",
        "UPPER.WAV,N,2,2,2,1,Male,Train",
        "a b.wav,N,3,3,3,1,Male,Train",
    )
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=rows, files=(decomposed, "upper.wav", "a b.wav")))
    assert not corpus.skipped
    found = {row["utterance_id"]: Path(row["path"]).name for row in corpus.table.to_pylist()}
    assert found == {composed: decomposed, "UPPER.WAV": "upper.wav", "a b.wav": "a b.wav"}


def test_an_exact_name_is_preferred_to_a_similar_one(tmp_path: Path) -> None:
    rows = ("a.wav,N,1,1,1,1,Male,Train", "A.wav,N,2,2,2,1,Male,Train")
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=rows))
    assert {name: Path(row["path"]).name for name, row in _rows(corpus).items()} == {
        "a.wav": "a.wav",
        "A.wav": "A.wav",
    }


def test_a_name_that_could_mean_several_files_is_not_guessed(tmp_path: Path) -> None:
    corpus = read_corpus(_corpus(tmp_path / "msp", files=(*NAMES[1:], f"x/{NAMES[0]}", f"y/{NAMES[0]}")))
    assert _reasons(corpus)[NAMES[0]] == f"2 audio files have this name: x/{NAMES[0]}, y/{NAMES[0]}"


def test_a_name_cannot_reach_outside_the_audio_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(b"")
    names = ("../secret.wav", "../../secret.wav", str(tmp_path / "secret.wav"))
    rows = (*ROWS, *(f"{name},N,1,1,1,1,Male,Train" for name in names))
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=rows, files=NAMES))
    assert set(_rows(corpus)) == set(NAMES) and set(_reasons(corpus)) == set(names)


def test_partitions_add_files_whose_labels_are_withheld(tmp_path: Path) -> None:
    lines = "Train; MSP-PODCAST_0001_0009.wav\r\n\r\nTest3; MSP-PODCAST_test3_0001.wav\r\nTest3; gone.wav\r\n"
    files = (*NAMES, "MSP-PODCAST_test3_0001.wav")
    corpus = read_corpus(_corpus(tmp_path / "msp", files=files, partitions=lines))
    added = _rows(corpus)["MSP-PODCAST_test3_0001.wav"]
    assert added["split"] == "test3"
    assert [added[name] for name in ("arousal", "dominance", "valence", "speaker")] == [None] * 4
    assert _reasons(corpus) == {"gone.wav": "no audio file of this name, but Partitions.txt line 4 lists it"}
    assert corpus.warnings == ()


def test_labels_win_over_partitions_with_a_warning(tmp_path: Path) -> None:
    corpus = read_corpus(_corpus(tmp_path / "msp", partitions=f"Test2; {NAMES[1]}\nDevelopment;{NAMES[2]}\n"))
    assert _rows(corpus)[NAMES[1]]["split"] == "train"
    (warning,) = corpus.warnings
    assert warning.startswith("1 files have another split in Partitions.txt")
    assert f"{NAMES[1]} (train, not test2)" in warning


def test_partitions_stand_in_for_a_missing_split_column(tmp_path: Path) -> None:
    rows = ("a.wav,2.5", "b.wav,3", "c.wav,4")
    folder = _corpus(
        tmp_path / "msp",
        header="FileName,EmoAct",
        rows=rows,
        partitions="Train; a.wav\nTest1; b.wav\nnonsense\n",
    )
    corpus = read_corpus(folder)
    assert {name: row["split"] for name, row in _rows(corpus).items()} == {"a.wav": "train", "b.wav": "test1"}
    assert _reasons(corpus) == {"c.wav": "it has labels but no split; name one, or 'unlabeled'"}
    assert corpus.warnings == ("Partitions.txt line 3 is not 'split; file' and was ignored: 'nonsense'",)


def test_labels_without_any_split_are_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no labeled row has a split .*a\.wav.*Split_Set.*Partitions\.txt"):
        read_corpus(_corpus(tmp_path / "msp", header="FileName,EmoAct", rows=("a.wav,2.5",)))


def test_a_speaker_in_two_splits_is_reported(tmp_path: Path) -> None:
    rows = ("a.wav,N,1,1,1,7,Male,Train", "b.wav,N,2,2,2,7.0,Male,Test1", "c.wav,N,3,3,3,Unknown,Male,Train",
            "d.wav,N,3,4,5,Unknown,Male,Test1")  # fmt: skip
    (warning,) = read_corpus(_corpus(tmp_path / "msp", rows=rows)).warnings
    assert warning.endswith("7 (test1, train)")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_delimiters_and_line_ends_change_nothing(
    tmp_path: Path, encoding: str, delimiter: str, newline: str
) -> None:
    folder = _corpus(tmp_path / "msp", rows=(*ROWS, "é.wav,N,1.25,2.5,3,5,Female,Train"))
    expected = read_corpus(folder)
    lines = (folder / "Labels" / "labels_consensus.csv").read_text(encoding="utf-8").splitlines()
    padded = [delimiter.join(f" {cell}\u00a0" for cell in line.split(",")) for line in lines]
    if delimiter != ",":
        padded = [padded[0], *(line.replace(".", ",").replace(",wav", ".wav") for line in padded[1:])]
    (folder / "Labels" / "labels_consensus.csv").write_bytes(newline.join(padded).encode(encoding))
    corpus = read_corpus(folder)
    assert corpus.table.equals(expected.table) and not corpus.skipped
    guessed = ("labels_consensus.csv is not valid UTF-8; it was read as Latin-1",)
    assert corpus.warnings == (guessed if encoding == "latin-1" else ())


def test_a_decimal_comma_between_commas_must_be_quoted(tmp_path: Path) -> None:
    rows = ('q.wav,N,"3,5",4,4,1,Male,Train', "u.wav,N,3,5,4,4,1,Male,Train")
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=rows, files=("q.wav",)))
    assert _rows(corpus)["q.wav"]["arousal"] == 3.5
    assert _reasons(corpus) == {
        "labels_consensus.csv line 3": "9 cells, but the header has 8; quote cells that contain the delimiter"
    }


@pytest.mark.parametrize("row", ['a.wav,"N,1,1,1,1,Male,Train', 'a.wav,N,1,1,1,1,Male,"Train'])
def test_an_open_quote_stops_the_reader_instead_of_eating_rows(tmp_path: Path, row: str) -> None:
    with pytest.raises(UserError, match=r"labels_consensus\.csv line 2: .* close the quote"):
        read_corpus(_corpus(tmp_path / "msp", rows=(row, *ROWS)))


def test_columns_in_another_order_case_and_company(tmp_path: Path) -> None:
    header = "split set,EMODOM,transcript,emoval,spkr_id,filename,emoact"
    rows = ('Train,1.5,"he said ""no"",\nthen left",2.5,9,a.wav,3.5',)
    folder = _corpus(tmp_path / "msp", header=header, rows=rows, files=("a.wav",))
    row = _rows(read_corpus(folder))["a.wav"]
    assert (row["arousal"], row["valence"], row["dominance"], row["speaker"]) == (3.5, 2.5, 1.5, "9")


def test_labels_and_audio_elsewhere_can_be_named(tmp_path: Path) -> None:
    _corpus(tmp_path / "msp")
    (tmp_path / "empty").mkdir()
    labels = tmp_path / "msp" / "Labels" / "labels_consensus.csv"
    corpus = read_corpus(tmp_path / "empty", labels=labels, audio=tmp_path / "msp" / "Audios")
    assert corpus.format == "msp-podcast" and set(_rows(corpus)) == set(NAMES)


def test_detailed_labels_are_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = _corpus(tmp_path / "msp")
    detailed = folder / "Labels" / "labels_detailed.csv"
    detailed.write_text(
        'FileName,EmoDetail\na.wav,"WORKER1; Neutral; Neutral,Concerned; A:4.000; V:4.000;"\n'
    )
    with pytest.raises(UserError, match=r"one row per annotator; use --labels with labels_consensus\.csv"):
        read_corpus(folder, labels=detailed)


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        read_corpus(tmp_path / "nowhere")
    folder = _corpus(tmp_path / "msp", labels="Labels/annotations.csv")
    with pytest.raises(UserError, match=r"label folder without labels_consensus\.csv; .*--labels"):
        read_corpus(folder)
    with pytest.raises(UserError, match=r"no labels_consensus\.csv .*--labels"):
        read_corpus(folder, format="msp-podcast")
    with pytest.raises(UserError, match=r"label file .*none\.csv does not exist"):
        read_corpus(folder, labels=tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"audio folder .*none does not exist"):
        read_corpus(folder, audio=tmp_path / "none")
    silent = _corpus(tmp_path / "silent", files=())
    with pytest.raises(UserError, match=r"no audio files in .*Audios .*--audio"):
        read_corpus(silent)
    strangers = _corpus(tmp_path / "strangers", files=("other.wav",))
    with pytest.raises(
        UserError, match=r"no usable utterance .*first of 4 skipped: MSP.*0008.wav: no audio file"
    ):
        read_corpus(strangers)


@pytest.mark.parametrize("text", ["", "\n \n", "{", "[1, 2]", "7"])
def test_label_files_that_hold_nothing_are_refused(tmp_path: Path, text: str) -> None:
    folder = _corpus(tmp_path / "msp")
    labels = folder / "Labels" / ("labels_consensus.csv" if not text.strip() else "labels_consensus.json")
    (folder / "Labels" / "labels_consensus.csv").unlink()
    labels.write_text(text)
    with pytest.raises(UserError, match=labels.name):
        read_corpus(folder)


def test_linked_audio_is_followed(tmp_path: Path) -> None:
    _corpus(tmp_path / "disk")
    folder = _corpus(tmp_path / "msp", files=())
    (folder / "Audios").rmdir()
    (folder / "Audios").mkdir()
    for name in NAMES[:2]:
        os.symlink(tmp_path / "disk" / "Audios" / name, folder / "Audios" / name)
    os.symlink(tmp_path / "gone.wav", folder / "Audios" / NAMES[2])
    corpus = read_corpus(folder)
    assert set(_rows(corpus)) == set(NAMES[:2])
    assert (NAMES[2], "no audio file of this name") in [(skip.file, skip.reason) for skip in corpus.skipped]
    os.rename(folder / "Audios", tmp_path / "moved")
    os.symlink(tmp_path / "disk" / "Audios", folder / "Audios")
    assert set(_rows(read_corpus(folder))) == set(NAMES)


@pytest.mark.parametrize("value", ["1", "30", "1.0", "a", "007", "1.5"])
def test_speaker_ids_stay_what_they_are(tmp_path: Path, value: str) -> None:
    corpus = read_corpus(_corpus(tmp_path / "msp", rows=(f"a.wav,N,1,1,1,{value},Male,Train",)))
    assert corpus.table["speaker"].to_pylist() == ["1" if value == "1.0" else value]


@pytest.mark.speech
def test_recorded_german_speech_reads_with_its_stated_counts(speech_dir: Path) -> None:
    corpus = read_corpus(speech_dir / "emodb")
    assert corpus.format == "msp-podcast" and corpus.skipped == () and corpus.warnings == ()
    counts = corpus.table["split"].value_counts().to_pylist()
    assert {row["values"]: row["counts"] for row in counts} == {"train": 284, "validation": 124, "test1": 127}
    assert len(set(corpus.table["speaker"].to_pylist())) == 10
    oracle = pd.read_csv(speech_dir / "emodb" / "Labels" / "labels_consensus.csv", dtype={"SpkrID": str})
    frame = corpus.table.to_pandas()
    assert frame["utterance_id"].tolist() == oracle["FileName"].tolist()
    for name, column in {
        "arousal": "EmoAct",
        "valence": "EmoVal",
        "dominance": "EmoDom",
        "speaker": "SpkrID",
    }.items():
        assert frame[name].tolist() == oracle[column].tolist()
    assert all(Path(path).is_file() for path in frame["path"])


@pytest.mark.speech
def test_recorded_polish_speech_and_its_pool_read_with_their_stated_counts(speech_dir: Path) -> None:
    corpus = read_corpus(speech_dir / "nemo", unlabeled=[speech_dir / "unlabeled"])
    assert corpus.format == "msp-podcast" and corpus.skipped == ()
    counts = {row["values"]: row["counts"] for row in corpus.table["split"].value_counts().to_pylist()}
    assert counts == {"train": 345, "validation": 90, "test1": 90, "unlabeled": 1000}
    speakers = corpus.table.group_by("split").aggregate([("speaker", "count_distinct")]).to_pylist()
    assert {row["split"]: row["speaker_count_distinct"] for row in speakers} == {
        "train": 4, "validation": 1, "test1": 1, "unlabeled": 0,
    }  # fmt: skip
