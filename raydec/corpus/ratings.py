"""The ratings of individual annotators: MSP-Podcast's ``labels_detailed.csv``, a row per file and annotator.

A row is ``FILE,"WORKER; primary emotion; secondary emotions; A:4.000; V:4.000; D:4.000;"``. The emotions are
free text, which may contain commas and semicolons; they are ignored.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from raydec.config import ATTRIBUTES
from raydec.corpus.audio_files import printable
from raydec.corpus.delimited import read_text
from raydec.corpus.rows import Ratings, number_cell
from raydec.corpus.table import name_some
from raydec.errors import UserError

RATINGS_FILE = "labels_detailed.csv"
_LETTERS = tuple(attribute[0].upper() for attribute in ATTRIBUTES)


@dataclass(frozen=True)
class RatingsFile:
    """The usable content of a file of ratings.

    Attributes:
        ratings: by utterance.
        num_annotators: number of named annotators who rated these utterances.
        warnings: about what was left out, one line each.
    """

    ratings: dict[str, Ratings]
    num_annotators: int
    warnings: list[str]


def read_ratings(path: Path, utterance_ids: Collection[str], label_range: tuple[float, float]) -> RatingsFile:
    """Read the ratings of known utterances.

    If an annotator rated a file more than once, the mean of these ratings is used.

    Args:
        path: ``labels_detailed.csv``.
        utterance_ids: utterances whose ratings are read, named as in the file.
        label_range: lowest and highest valid rating; others are left out.

    Raises:
        UserError: the file cannot be read.
    """
    text, warnings = read_text(path)
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    collected = _Collected(path.name, label_range)
    try:
        header = [name.strip().casefold() for name in next(rows, [])]
        if header[:2] != ["filename", "emodetail"]:
            found = f"{path.name} was not read: its header is not FileName,EmoDetail, but {','.join(header)}"
            return RatingsFile({}, 0, [*warnings, printable(found)])
        for row in rows:
            if any(map(str.strip, row)):
                collected.take(rows.line_num, row[0].strip(), ",".join(row[1:]), utterance_ids)
    except csv.Error as error:
        raise UserError(
            f"{path} line {rows.line_num} is not delimited text: {error}; close the quote"
        ) from None
    return RatingsFile(collected.ratings(), len(collected.annotators), [*warnings, *collected.warnings()])


class _Collected:
    """Ratings by utterance and annotator, and what was left out."""

    def __init__(self, name: str, label_range: tuple[float, float]) -> None:
        self.annotators: set[str] = set()
        self._name = name
        self._low, self._high = label_range
        self._found: dict[str, dict[str, list[list[float | None]]]] = {}
        self._unknown: dict[str, None] = {}
        self._unreadable: list[str] = []
        self._outside: list[str] = []

    def take(self, line: int, file: str, detail: str, utterance_ids: Collection[str]) -> None:
        """Add a row."""
        if file not in utterance_ids:
            self._unknown[printable(file) or f"line {line}"] = None
            return
        annotator, *parts = (part.strip() for part in detail.split(";"))
        # The last match of each letter, because the free text before the ratings may look like a rating.
        cells = {part[0]: part[1:].strip()[1:] for part in parts if part[1:].strip().startswith(":")}
        try:
            values = [number_cell(cells.get(letter)) for letter in _LETTERS]
        except ValueError:
            values = [None] * len(_LETTERS)
        if values == [None] * len(_LETTERS):
            self._unreadable.append(f"line {line}")
            return
        values = [self._valid(value, file, place) for place, value in enumerate(values)]
        if annotator:
            self.annotators.add(annotator)
        annotator = annotator or f"line {line}"
        self._found.setdefault(file, {}).setdefault(annotator, []).append(values)

    def ratings(self) -> dict[str, Ratings]:
        """Per utterance, the lists of ratings of each attribute."""
        places = range(len(ATTRIBUTES))
        return {
            file: tuple(_by_annotator(annotators.values(), place) for place in places)
            for file, annotators in self._found.items()
        }

    def warnings(self) -> list[str]:
        """What was left out, one line for each reason."""
        low, high = f"{self._low:g}", f"{self._high:g}"
        found = {
            f"ratings outside {low} to {high} were left out": self._outside,
            "rows without readable ratings (A:, V:, D:) were left out": self._unreadable,
            "files are not utterances of the corpus; their ratings were left out": list(self._unknown),
        }
        return [
            f"{self._name}: {len(places)} {what}: {name_some(places)}"
            for what, places in found.items()
            if places
        ]

    def _valid(self, value: float | None, file: str, place: int) -> float | None:
        if value is None or self._low <= value <= self._high:
            return value
        self._outside.append(f"{file} ({ATTRIBUTES[place]} {value:g})")
        return None


def _by_annotator(annotators: Collection[list[list[float | None]]], place: int) -> list[float]:
    ratings = []
    for rows in annotators:
        values = [value for row in rows if (value := row[place]) is not None]
        if values:
            ratings.append(sum(values) / len(values))
    return ratings
