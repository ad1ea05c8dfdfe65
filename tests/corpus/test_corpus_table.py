"""The utterance table: what is refused, what is canonical, what is only worth a warning."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydec.corpus.table import (
    SCHEMA,
    labeled_mask,
    name_some,
    table_from_columns,
    table_warnings,
    validate_table,
)
from raydec.errors import UserError
from raydec.splits import CANONICAL_SPLITS, canonical_split


def _table(**columns: list[object]) -> pa.Table:
    length = len(next(iter(columns.values())))
    defaults = {
        "utterance_id": [f"u{i}" for i in range(length)],
        "path": [f"/audio/u{i}.wav" for i in range(length)],
        "split": ["train"] * length,
    }
    return table_from_columns({**defaults, **columns})


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("Train", "train"), (" TRAINING ", "train"), ("Validation", "validation"),
        ("Development", "validation"), ("Test1", "test1"),
        ("Dev", "validation"), ("valid", "validation"), ("val", "validation"), ("Test", "test"),
        ("Test 2", "test2"), ("test_3", "test3"), ("Unlabelled", "unlabeled"), ("\u00a0Train\u00a0", "train"),
        ("Fold-7", "fold-7"), ("held_out", "held_out"),
    ],
)  # fmt: skip
def test_split_names_of_every_release_have_one_spelling(given_name: str, expected: str) -> None:
    assert canonical_split(given_name) == expected


@given(st.sampled_from(CANONICAL_SPLITS), st.sampled_from(["upper", "title", "lower"]), st.integers(0, 3))
def test_case_and_blanks_never_change_a_split(split: str, case: str, blanks: int) -> None:
    assert canonical_split(" " * blanks + getattr(split, case)() + "\t" * blanks) == split


@pytest.mark.parametrize("name", ["", "  ", "train/1", "Träin", "a;b"])
def test_a_split_name_that_could_not_be_typed_again_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="split name"):
        canonical_split(name)


def test_a_valid_table_comes_back_with_the_schema_and_the_same_rows() -> None:
    table = _table(arousal=[1.0, 7.0, None], speaker=["a", None, "b"])
    valid = validate_table(
        table.append_column("extra", pa.array([1, 2, 3])).select([*reversed(SCHEMA.names)])
    )
    assert valid.schema == SCHEMA
    assert valid.equals(table)


def test_optional_columns_may_be_absent_and_nan_is_unlabeled() -> None:
    table = pa.table(
        {
            "utterance_id": ["a", "b"],
            "path": ["/a", "/b"],
            "split": ["train", "test"],
            "valence": [float("nan"), 2],
        }
    )
    valid = validate_table(table)
    assert valid.schema == SCHEMA
    assert valid["valence"].to_pylist() == [None, 2.0]
    assert valid["arousal"].null_count == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"utterance_id": ["a", "b", "a"]}, "more than once: a"),
        ({"path": ["/a", "b.wav"]}, "'u1': path is not absolute: 'b.wav'"),
        ({"split": ["train", "Development"]}, "'Development' is not canonical; write 'validation'"),
        ({"arousal": [1.0, float("inf")]}, "'u1': arousal is not finite"),
    ],
)
def test_a_broken_table_is_refused_by_name(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_table(_table(**columns))


def test_required_columns_must_be_there_and_full() -> None:
    table = _table(speaker=["a"])
    with pytest.raises(UserError, match="no column 'path'"):
        validate_table(table.drop_columns(["path"]))
    with_null = table.set_column(0, "utterance_id", pa.array([None], pa.string()))
    with pytest.raises(UserError, match="'utterance_id' has 1 empty cells"):
        validate_table(with_null)
    with pytest.raises(UserError, match="'arousal' must have type double, not string"):
        validate_table(table.drop_columns(["arousal"]).append_column("arousal", pa.array(["loud"])))


def test_an_empty_table_is_valid() -> None:
    assert validate_table(_table(utterance_id=[])).num_rows == 0


def test_a_speaker_in_two_splits_is_named_with_them() -> None:
    table = _table(
        speaker=["a", "a", "b", "b", None, None, "c", "c"],
        split=["train", "test1", "train", "train", "train", "test1", "train", "unlabeled"],
    )
    (warning,) = table_warnings(validate_table(table))
    assert warning.startswith("1 speaker is in more than one split")
    assert "a (test1, train)" in warning


def test_a_long_list_of_shared_speakers_is_cut() -> None:
    speakers = [f"s{i:02d}" for i in range(12)]
    (warning,) = table_warnings(_table(speaker=speakers * 2, split=["train"] * 12 + ["test"] * 12))
    assert warning.startswith("12 speakers are")
    assert warning.endswith("s04 (test, train) and 7 more")


def test_labels_that_never_vary_are_pointed_out() -> None:
    table = _table(
        arousal=[4.0, 4.0, 1.0, 2.0], valence=[3.0, None, None, None], split=["test"] * 2 + ["train"] * 2
    )
    (warning,) = table_warnings(table)
    assert warning.startswith("every arousal label of split test is 4;")


def test_a_row_is_labeled_if_any_attribute_is() -> None:
    table = _table(arousal=[1.0, None, None], valence=[None, 2.0, None])
    assert labeled_mask(table).to_pylist() == [True, True, False]
    assert labeled_mask(table, ["arousal"]).to_pylist() == [True, False, False]


def test_names_are_listed_up_to_a_limit() -> None:
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(["a", "b", "c"], limit=1) == "a and 2 more"
