"""Converts the cells of label rows to utterances, or to reasons for skipping them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from raydec.config import ATTRIBUTES
from raydec.corpus.audio_files import AudioFile, RowProblem, printable
from raydec.corpus.label_file import LabelFile
from raydec.corpus.segments import Segment, segment_of
from raydec.corpus.table import (
    RATING_FIELDS,
    SCHEMA,
    UNLABELED_SPLIT,
    Skipped,
    canonical_split,
    name_some,
    table_from_columns,
)
from raydec.errors import UserError

_MISSING = frozenset(
    {"", "-", "--", "?", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "unknown", "unk"}
)


class Record(NamedTuple):
    """One row of the utterance table, fields in the order of its schema."""

    utterance_id: str
    path: str
    speaker: str | None
    split: str
    arousal: float | None
    dominance: float | None
    valence: float | None
    emotion: str | None
    gender: str | None
    start_s: float | None = None
    end_s: float | None = None

    @property
    def is_labeled(self) -> bool:
        """Whether at least one attribute has a value."""
        return any(value is not None for value in (self.arousal, self.dominance, self.valence))


assert Record._fields == tuple(SCHEMA.names)

Ratings = tuple[list[float], ...]
"""An utterance's ratings by individual annotators: one list per attribute, in the order of ``ATTRIBUTES``."""


@dataclass
class Reading:
    """The intermediate result of a reader, from which a corpus is made.

    Attributes:
        records: usable utterances; no two are the same segment of a file.
        skipped: files and rows that are left out.
        warnings: one line each.
        unclaimed: audio files without a row.
        ratings: ratings by individual annotators, for each utterance; empty if the corpus has none.
        num_annotators: number of annotators who gave these ratings.
    """

    records: list[Record] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unclaimed: list[AudioFile] = field(default_factory=list)
    ratings: dict[str, Ratings] = field(default_factory=dict)
    num_annotators: int = 0

    def to_table(self) -> pa.Table:
        """The records as an utterance table, not yet validated."""
        table = table_from_columns(
            {name: [record[place] for record in self.records] for place, name in enumerate(SCHEMA.names)}
        )
        if not self.ratings:
            return table
        found = [self.ratings.get(record.utterance_id) for record in self.records]
        for place, column in enumerate(RATING_FIELDS):
            values = [None if ratings is None else ratings[place] for ratings in found]
            table = table.append_column(column, pa.array(values, column.type))
        return table


def unlabeled_record(file: AudioFile, split: str = UNLABELED_SPLIT) -> Record:
    """A record of an utterance without labels and metadata."""
    return Record(file.name, file.path, None, split, None, None, None, None, None)


class RowCollector:
    """Collects the rows of label files and decides which are used.

    Identical rows for the same segment of an audio file are used once; conflicting rows are skipped.

    Args:
        label_range: lowest and highest valid label.
        split_of: returns the split of a file whose row has none, or None if it is unknown.
        split_remedy: advice for the error message if no labeled row has a split.
    """

    def __init__(
        self,
        label_range: tuple[float, float],
        split_of: Callable[[AudioFile], str | None],
        split_remedy: str,
    ) -> None:
        self._low, self._high = label_range
        self._split_of = split_of
        self._split_remedy = split_remedy
        self._outcomes: dict[tuple[str, Segment], list[Record | Skipped]] = {}
        self._lost: list[Skipped] = []
        self._warnings: list[str] = []
        self._without_split: str | None = None

    def add(self, label_file: LabelFile, locate: Callable[[str], AudioFile]) -> None:
        """Add the rows of one label file.

        Args:
            label_file: the rows.
            locate: finds the audio file of a row, or raises ``RowProblem``.
        """
        self._lost += label_file.skipped
        self._warnings += label_file.warnings
        cells = zip(
            label_file.columns["file"],
            _transposed(label_file, ATTRIBUTES),
            _transposed(label_file, ("speaker", "split", "emotion", "gender"), text_cell),
            _transposed(label_file, ("start", "end", "duration")),
            strict=True,
        )
        for number, (name, labels, texts, times) in enumerate(cells):
            if not isinstance(name, str) or not name.strip():
                self._lost.append(Skipped(label_file.place(number), "has no file name"))
                continue
            name = name.strip()
            try:
                file = locate(name)
                segment = segment_of(*times)
            except (RowProblem, ValueError) as problem:
                self._lost.append(Skipped(printable(name), str(problem)))
                continue
            outcome = self._outcome(file, segment, labels, texts)
            self._outcomes.setdefault((file.path, segment), []).append(outcome)

    @property
    def paths(self) -> set[str]:
        """Audio files that have a row, whether or not the row is used."""
        return {path for path, _ in self._outcomes}

    def finish(self) -> Reading:
        """Resolve repeated rows and return the result.

        Raises:
            UserError: there are labels, but no labeled row has a split.
        """
        reading = Reading(skipped=list(dict.fromkeys(self._lost)), warnings=list(self._warnings))
        repeated: list[str] = []
        for outcomes in self._outcomes.values():
            first = outcomes[0]
            if len(outcomes) > 1:
                first = _agreed(outcomes)
                if isinstance(first, Record):
                    repeated.append(first.utterance_id)
            if isinstance(first, Record):
                reading.records.append(first)
            else:
                reading.skipped.append(first)
        if repeated:
            reading.warnings.append(f"identical rows were read once: {name_some(repeated)}")
        if self._without_split and not any(record.is_labeled for record in reading.records):
            raise UserError(
                f"no labeled row has a split (the first is {self._without_split}); {self._split_remedy}"
            )
        return reading

    def _outcome(
        self, file: AudioFile, segment: Segment, labels: tuple[Any, ...], texts: tuple[Any, ...]
    ) -> Record | Skipped:
        utterance_id = segment.name_in(file.name)
        speaker, split, emotion, gender = texts
        try:
            arousal, dominance, valence = map(self._label, ATTRIBUTES, labels)
            is_labeled = not (arousal is None and dominance is None and valence is None)
            split = self._split(file, split, is_labeled)
        except (RowProblem, UserError) as problem:
            return Skipped(utterance_id, str(problem))
        times = (None, None) if segment.is_whole else segment
        return Record(
            utterance_id, file.path, speaker, split, arousal, dominance, valence, emotion, gender, *times
        )

    def _split(self, file: AudioFile, given: str | None, is_labeled: bool) -> str:
        split = given or self._split_of(file)
        if split is not None:
            return canonical_split(split)
        if is_labeled:
            self._without_split = self._without_split or file.name
            raise RowProblem("it has labels but no split; name one, or 'unlabeled'")
        return UNLABELED_SPLIT

    def _label(self, attribute: str, cell: Any) -> float | None:
        try:
            value = number_cell(cell)
        except ValueError:
            raise RowProblem(f"{attribute} {cell!r} is not a number") from None
        if value is not None and not self._low <= value <= self._high:
            limits = f"{self._low:g} to {self._high:g}"
            raise RowProblem(
                f"{attribute} {value!r} is outside {limits}; correct the label or set --label-range"
            )
        return value


def text_cell(cell: Any) -> str | None:
    """The text of a cell without surrounding blanks; None if it is empty or a spelling of "unknown".

    Integral numbers lose their decimals: pandas writes speaker 30 as 30.0 if any speaker is missing.
    """
    if cell is None or isinstance(cell, str):
        return _text(cell or "")
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return _text(str(cell))


def number_cell(cell: Any) -> float | None:
    """The number in a cell, with decimal point or comma; None if it is missing.

    Raises:
        ValueError: the cell is not a number.
    """
    if cell is None:
        return None
    if isinstance(cell, str):
        return _number(cell)
    if isinstance(cell, (bool, dict, list)):
        raise ValueError(cell)
    try:
        value = float(cell)
    except TypeError:
        raise ValueError(cell) from None
    return None if math.isnan(value) else value


# Cached, because cells repeat: labels are means over a few annotators, and names are few.
@functools.lru_cache(maxsize=65536)
def _number(text: str) -> float | None:
    text = text.strip()
    if text.casefold() in _MISSING:
        return None
    if "_" in text:  # Python reads 1_0 as 10
        raise ValueError(text)
    value = float(text.replace(",", ".") if "." not in text else text)
    return None if math.isnan(value) else value


@functools.lru_cache(maxsize=65536)
def _text(text: str) -> str | None:
    text = printable(text.strip())
    if text.endswith(".0") and text[:-2].isdecimal():
        return text[:-2]
    return None if text.casefold() in _MISSING else text


def _transposed(
    label_file: LabelFile, names: Sequence[str], read: Callable[[Any], Any] | None = None
) -> Iterator[tuple[Any, ...]]:
    """The given columns, row by row; None for a column that the file does not have."""
    absent = (None,) * len(label_file.columns["file"])
    columns = (label_file.columns.get(name, absent) for name in names)
    return zip(*(map(read, column) if read else column for column in columns), strict=True)


def _agreed(outcomes: list[Record | Skipped]) -> Record | Skipped:
    """Combine several rows for one file: identical rows give one record, conflicting rows are skipped."""
    first = outcomes[0]
    for other in outcomes[1:]:
        if isinstance(first, Skipped) or isinstance(other, Skipped):
            if first != other:
                bad = first if isinstance(first, Skipped) else other
                assert isinstance(bad, Skipped)
                return Skipped(
                    bad.file, f"{len(outcomes)} rows disagree, and in one {bad.reason}; keep one row"
                )
        elif first[1:] != other[1:]:
            name = next(name for name in Record._fields[1:] if getattr(first, name) != getattr(other, name))
            values = f"{name} is {getattr(first, name)!r} and {getattr(other, name)!r}"
            return Skipped(first.utterance_id, f"{len(outcomes)} rows disagree: {values}; keep one row")
    return first
