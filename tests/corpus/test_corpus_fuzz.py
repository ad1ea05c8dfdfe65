"""Whatever bytes a label file holds, the reader ends in a valid table or in one line for the user."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raydec.corpus.readers import read_corpus
from raydec.corpus.table import validate_table
from raydec.errors import UserError

_CSV = b"FileName,EmoAct,EmoVal,SpkrID,Split_Set\na.wav,2.5,3,7,Train\nb.wav,4,5,8,Test1\n"
_JSON = b'{"a.wav": {"EmoAct": 2.5, "Split_Set": "Train"}, "b.wav": {"EmoAct": 4, "SpkrID": 8}}\n'
_LINES = b'{"file": "a.wav", "arousal": 2.5, "split": "train"}\n{"file": "b.wav", "speaker": 8}\n'
_PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [
            b",",
            b'"',
            b"\n",
            b"\r",
            b"\0",
            b";",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"nan",
            b"1e999",
            b"../",
            b"{",
            b"]",
            b"null",
        ]
    ),
)


@pytest.mark.parametrize(
    ("suffix", "text"), [(".csv", _CSV), (".json", _JSON), (".jsonl", _LINES), (".parquet", b"PAR1")]
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 5), _PIECES), max_size=3))
def test_a_damaged_label_file_is_read_or_refused(
    tmp_path: Path, suffix: str, text: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"")
    for place, length, piece in edits:
        text = text[:place] + piece + text[place + length :]
    labels = tmp_path / f"labels{suffix}"
    labels.write_bytes(text)
    try:
        corpus = read_corpus(tmp_path, labels=labels)
    except UserError as error:
        assert "\n" not in str(error).strip()
        return
    assert validate_table(corpus.table).equals(corpus.table)
    assert set(corpus.table["utterance_id"].to_pylist()) <= {"a.wav", "b.wav"}
