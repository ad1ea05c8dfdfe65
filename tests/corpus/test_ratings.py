"""Annotators' ratings from ``labels_detailed.csv``: what is read, and what is left out and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydec.corpus.readers import read_corpus
from raydec.corpus.table import SCHEMA, Corpus
from raydec.errors import UserError

NAMES = ("a.wav", "b.wav", "c.wav")


def rated(folder: Path, detailed: str | None, name: str = "labels_detailed.csv") -> Corpus:
    """A corpus of three utterances with this text as the annotators' ratings."""
    for part in ("Audios", "Labels"):
        (folder / part).mkdir(parents=True)
    for file in NAMES:
        (folder / "Audios" / file).write_bytes(b"")
    rows = "".join(f"{file},N,3,4,5,1,Male,Train\n" for file in NAMES)
    header = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
    (folder / "Labels" / "labels_consensus.csv").write_text(header + rows)
    if detailed is not None:
        (folder / "Labels" / name).write_text(detailed)
    return read_corpus(folder)


def row(file: str, worker: str, scores: str, emotions: str = "Neutral; Neutral,Concerned") -> str:
    return f'{file},"{worker}; {emotions}; {scores}"\n'


def ratings(corpus: Corpus) -> dict[str, tuple[object, ...]]:
    names = ("arousal_ratings", "dominance_ratings", "valence_ratings")
    return {r["utterance_id"]: tuple(r[name] for name in names) for r in corpus.table.to_pylist()}


@pytest.mark.parametrize("name", ["labels_detailed.csv", "Labels_Detailed.CSV"])
def test_ratings_are_kept_per_utterance_with_nothing_swapped(tmp_path: Path, name: str) -> None:
    text = "FileName,EmoDetail\n" + "".join(
        [
            row("a.wav", "WORKER1", "A:2.000; V:3.000; D:4.000;"),
            row("a.wav", "WORKER2", "A:5.000; V:6.000; D:7.000;"),
            row("b.wav", "WORKER1", "A:1.000; V:1.000; D:1.000;", "Other-A: loud; V"),
        ]
    )
    corpus = rated(tmp_path, text, name)
    assert ratings(corpus) == {
        "a.wav": ([2, 5], [4, 7], [3, 6]),
        "b.wav": ([1], [1], [1]),
        "c.wav": (None, None, None),
    }
    assert corpus.warnings == rated(tmp_path / "none", None).warnings


def test_an_annotator_counts_once_for_a_file(tmp_path: Path) -> None:
    text = "FileName,EmoDetail\n" + "".join(
        [
            row("a.wav", "WORKER1", "A:2.000; V:3.000; D:4.000;"),
            row("a.wav", "WORKER2", "A:7.000; V:7.000; D:7.000;"),
            row("a.wav", "WORKER1", "A:3.000; V:3.000; D:6.000;"),
        ]
    )
    assert ratings(rated(tmp_path, text))["a.wav"] == ([2.5, 7], [5, 7], [3, 7])


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    text = "FileName,EmoDetail\n\n" + "".join(
        [
            row("a.wav", "WORKER1", "A:9.000; V:3.000; D:0.500;"),
            row("a.wav", "WORKER2", "A:4.000; V:nan;"),
            row("b.wav", "WORKER1", ""),
            row("b.wav", "WORKER2", "A:much; V:1; D:1;"),
            row("x.wav", "WORKER1", "A:4.000; V:4.000; D:4.000;"),
            row("x.wav", "WORKER2", "A:4.000; V:4.000; D:4.000;"),
            "c.wav,W; Neutral; Neutral,Sad; A:1; V:2; D:3;\n",
        ]
    )
    corpus = rated(tmp_path, text)
    assert ratings(corpus) == {"a.wav": ([4], [], [3]), "b.wav": (None,) * 3, "c.wav": ([1], [3], [2])}
    found = [warning for warning in corpus.warnings if warning.startswith("labels_detailed.csv")]
    assert found == [
        "labels_detailed.csv: 2 ratings outside 1 to 7 were left out: a.wav (arousal 9), "
        "a.wav (dominance 0.5)",
        "labels_detailed.csv: 2 rows without readable ratings (A:, V:, D:) were left out: line 5, line 6",
        "labels_detailed.csv: 1 files are not utterances of the corpus; their ratings were left out: x.wav",
    ]


def test_no_ratings_add_no_columns(tmp_path: Path) -> None:
    assert rated(tmp_path / "none", None).table.schema == SCHEMA
    other = rated(tmp_path / "other", "FileName,Rating\na.wav,3\n")
    assert other.table.schema == SCHEMA
    assert any("labels_detailed.csv was not read: its header is" in line for line in other.warnings)
    assert rated(tmp_path / "empty", "").table.schema == SCHEMA


def test_an_open_quote_is_one_line(tmp_path: Path) -> None:
    lines = "".join(row("a.wav", f"W{i}", "A:1; V:1; D:1;").replace('"\n', "\n") for i in range(1))
    text = f"FileName,EmoDetail\n{lines}{'b.wav,W; A:1;' * 20_000}"
    with pytest.raises(UserError, match=r"labels_detailed\.csv line \d+ is not delimited text: .*quote"):
        rated(tmp_path, text)
