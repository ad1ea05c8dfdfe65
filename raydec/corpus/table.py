"""The utterance table: one row per audio file or segment, independent of the corpus layout.

Readers fill it, :func:`validate_table` checks it once, and all later code relies on it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int64

from raydec.config import ATTRIBUTES
from raydec.corpus.segments import WHOLE, Segment
from raydec.errors import UserError
from raydec.splits import UNLABELED_SPLIT, canonical_split

SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("speaker", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("arousal", pa.float64()),
        pa.field("dominance", pa.float64()),
        pa.field("valence", pa.float64()),
        pa.field("emotion", pa.string()),
        pa.field("gender", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
    ]
)
"""Columns of an utterance table. Unique ``utterance_id``, absolute ``path``, canonical ``split``; a null
speaker is unknown, a null attribute is unlabeled for that attribute. ``start_s`` and ``end_s`` delimit
a segment of the file; null means the start or end of the file."""

RATING_FIELDS = tuple(pa.field(f"{name}_ratings", pa.list_(pa.float32())) for name in ATTRIBUTES)
"""Columns that a table has after those of :data:`SCHEMA` if there are individual annotators' ratings: one
rating per annotator, in the scale of the labels; null if unknown."""

_MAX_NAMED = 5


@dataclass(frozen=True)
class Skipped:
    """A file or row that was left out of the table.

    Attributes:
        file: its name as given by the corpus.
        reason: what is wrong, with value, limit and, if there is one, remedy.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """A corpus that has been read and validated.

    Attributes:
        name: the corpus folder's name.
        table: an utterance table with :data:`SCHEMA`, and :data:`RATING_FIELDS` if there are ratings.
        skipped: files and rows that were left out, with reasons.
        warnings: problems that did not lead to skipping, one line each.
        format: the detected or given layout: ``msp-podcast``, ``manifest`` or ``folder``.
        synthetic: whether it is the synthetic demo corpus.
        label_range: lowest and highest valid label; None without labels.
        num_annotators: number of annotators whose individual ratings are in the table.
    """

    name: str
    table: pa.Table
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    format: str
    synthetic: bool = False
    label_range: tuple[float, float] | None = None
    num_annotators: int = 0


def table_from_columns(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Make an (unvalidated) table with :data:`SCHEMA`; columns not given are null."""
    length = len(columns["utterance_id"])
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(length, field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def validate_table(table: pa.Table) -> pa.Table:
    """Check an utterance table and convert it to exactly :data:`SCHEMA`, and ratings if there are any.

    Extra columns are dropped, missing optional ones become null, NaN attributes become null.

    Returns:
        The table with :data:`SCHEMA` and the :data:`RATING_FIELDS` that it has, rows in the same order.

    Raises:
        UserError: a required column is missing or has nulls, types do not fit, an ``utterance_id`` occurs
            twice, a path is not absolute, a split is not canonical, or an attribute is infinite.
    """
    table = _conform(table)
    _refuse_duplicates(table["utterance_id"])
    _refuse("path is not absolute", table, pc.invert(_is_absolute(table["path"])), "path")
    for split in pc.unique(table["split"]).to_pylist():
        if canonical_split(split) != split:
            raise UserError(f"split {split!r} is not canonical; write {canonical_split(split)!r}")
    for attribute in ATTRIBUTES:
        infinite = pc.fill_null(pc.is_inf(table[attribute]), False)
        _refuse(f"{attribute} is not finite", table, infinite, attribute)
    return table


def table_warnings(table: pa.Table) -> tuple[str, ...]:
    """Warnings about a valid table: speakers in several splits, constant labels."""
    return (*_shared_speakers(table), *_constant_labels(table))


def labeled_mask(table: pa.Table, attributes: Iterable[str] = ATTRIBUTES) -> pa.ChunkedArray:
    """Per row, whether at least one of the attributes is labeled."""
    return functools.reduce(pc.or_, (pc.is_valid(table[attribute]) for attribute in attributes))


def segments(table: pa.Table) -> list[Segment]:
    """The segment of each row; whole files in tables stored by older versions."""
    if "start_s" not in table.column_names:
        return [WHOLE] * table.num_rows
    pairs = zip(table["start_s"].to_pylist(), table["end_s"].to_pylist(), strict=True)
    return [Segment(start_s or 0.0, end_s) for start_s, end_s in pairs]


def flat_ratings(
    table: pa.Table, attribute: str
) -> tuple[Float64[np.ndarray, " rating"], Int64[np.ndarray, " rating"]]:
    """All annotators' ratings of an attribute, and the row of each; empty if the table has none.

    Args:
        table: rows of a corpus or a store.
        attribute: such as ``arousal``.
    """
    column = f"{attribute}_ratings"
    if column not in table.column_names:
        return np.empty(0), np.empty(0, np.int64)
    lists = table[column].combine_chunks()
    ratings = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(np.float64)
    return ratings, pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)


def name_some(names: Sequence[str], limit: int = _MAX_NAMED) -> str:
    """The first few names for a message: ``a, b, c and 7 more``."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def _conform(table: pa.Table) -> pa.Table:
    arrays = []
    for field in SCHEMA:
        if field.name not in table.column_names:
            if not field.nullable:
                raise UserError(f"the utterance table has no column {field.name!r}")
            arrays.append(pa.nulls(table.num_rows, field.type))
            continue
        arrays.append(_cast(table[field.name], field))
    ratings = [field for field in RATING_FIELDS if field.name in table.column_names]
    arrays += [_cast(table[field.name], field) for field in ratings]
    return pa.Table.from_arrays(arrays, schema=pa.schema([*SCHEMA, *ratings]))


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        column = column.cast(field.type)
    except pa.ArrowException as error:
        raise UserError(
            f"column {field.name!r} must have type {field.type}, not {column.type}: {error}"
        ) from None
    if not field.nullable and column.null_count:
        raise UserError(f"column {field.name!r} has {column.null_count} empty cells; every row needs one")
    if pa.types.is_floating(field.type):
        column = pc.if_else(pc.fill_null(pc.is_nan(column), False), pa.scalar(None, field.type), column)
    return column


def _is_absolute(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.match_substring_regex(paths, r"^(/|[A-Za-z]:[\\/]|\\\\)")


def _refuse_duplicates(ids: pa.ChunkedArray) -> None:
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = ids.value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    raise UserError(f"utterance_id must be unique, but these occur more than once: {name_some(repeated)}")


def _refuse(problem: str, table: pa.Table, mask: pa.ChunkedArray, column: str) -> None:
    bad = table.filter(mask)
    if bad.num_rows:
        row = bad.slice(0, 1).to_pylist()[0]
        raise UserError(f"utterance {row['utterance_id']!r}: {problem}: {row[column]!r}")


def _shared_speakers(table: pa.Table) -> list[str]:
    labeled = table.filter(
        pc.and_(pc.is_valid(table["speaker"]), pc.not_equal(table["split"], UNLABELED_SPLIT))
    )
    pairs = labeled.group_by(["speaker", "split"]).aggregate([])
    splits_of: dict[str, list[str]] = {}
    for speaker, split in zip(pairs["speaker"].to_pylist(), pairs["split"].to_pylist(), strict=True):
        splits_of.setdefault(speaker, []).append(split)
    shared = [
        f"{speaker} ({', '.join(sorted(splits))})"
        for speaker, splits in sorted(splits_of.items())
        if len(splits) > 1
    ]
    if not shared:
        return []
    noun = "speaker is" if len(shared) == 1 else "speakers are"
    where = "in more than one split, so scores are not speaker-independent"
    return [f"{len(shared)} {noun} {where}: {name_some(shared)}"]


def _constant_labels(table: pa.Table) -> list[str]:
    warnings = []
    for attribute in ATTRIBUTES:
        stats = table.group_by("split").aggregate(
            [(attribute, "min"), (attribute, "max"), (attribute, "count")]
        )
        for row in sorted(stats.to_pylist(), key=lambda row: row["split"]):
            if row[f"{attribute}_count"] > 1 and row[f"{attribute}_min"] == row[f"{attribute}_max"]:
                warnings.append(
                    f"every {attribute} label of split {row['split']} is {row[f'{attribute}_min']:g}; "
                    "its CCC is undefined and reported as 0"
                )
    return warnings
