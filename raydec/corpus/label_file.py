"""Reads label files of various formats and column names into the columns of the utterance table.

Formats are delimited text (encoding and delimiter are detected), JSON, JSON lines and Parquet. Case, blanks
and punctuation in header names are ignored. :mod:`raydec.corpus.rows` interprets the cells.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raydec.corpus.delimited import find_delimiter, read_lines, read_text, split_header, split_rows
from raydec.corpus.table import Skipped, name_some
from raydec.errors import UserError

# In order of preference: if a header has several of these columns, the first is used.
_FILE_ALIASES = (
    "filename", "file", "path", "filepath", "audiopath", "audiofilepath", "audiofile", "audiofilename",
    "audio", "wavpath", "wav",
)  # fmt: skip
_ALIASES: dict[str, tuple[str, ...]] = {
    "file": _FILE_ALIASES,
    "arousal": ("arousal", "emoact", "act", "activation"),
    "dominance": ("dominance", "emodom", "dom"),
    "valence": ("valence", "emoval", "val"),
    "speaker": ("speaker", "spkrid", "spk", "speakerid", "spkid"),
    "split": ("split", "splitset", "partition", "subset"),
    "emotion": ("emotion", "emoclass"),
    "gender": ("gender", "sex"),
    "start": ("start", "starts", "starttime", "startsec", "startseconds", "begin", "begintime", "onset"),
    "end": ("end", "ends", "endtime", "endsec", "endseconds", "stop", "stoptime"),
    "duration": ("duration", "durations", "dur", "durationsec", "durationseconds"),
}
_FIELD_OF = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}
_PARQUET_SUFFIXES = (".parquet", ".pq")
_JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
MANIFEST_SUFFIXES = (".csv", ".tsv", *_PARQUET_SUFFIXES, *_JSON_LINES_SUFFIXES)


@dataclass(frozen=True)
class LabelFile:
    """A label file's rows, by column.

    Attributes:
        path: the file.
        columns: ``file`` and the other columns of an utterance table that the file has, each with one
            unconverted cell per row.
        numbers: position of each row in the file, counted from 1.
        unit: what ``numbers`` counts: lines, rows or entries.
        skipped: rows that could not be parsed.
        warnings: about guesses.
    """

    path: Path
    columns: Mapping[str, Sequence[Any]]
    numbers: Sequence[int]
    unit: str = "line"
    skipped: Sequence[Skipped] = ()
    warnings: Sequence[str] = ()

    def place(self, row: int) -> str:
        """The position of a row, for messages: ``labels.csv line 7``."""
        return f"{self.path.name} {self.unit} {self.numbers[row]}"


def read_label_file(path: Path) -> LabelFile:
    """Read a label file.

    Raises:
        UserError: it cannot be read, has no column of file names, or two columns for one attribute.
    """
    suffix = path.suffix.lower()
    if suffix in _PARQUET_SUFFIXES:
        return _read_parquet(path)
    if suffix in _JSON_LINES_SUFFIXES:
        return _from_objects(path, *_json_lines(path))
    if suffix == ".json":
        return _from_objects(path, *_json_objects(path))
    return _read_delimited(path)


def column_names(path: Path) -> set[str]:
    """Normalised column names: ``FileName`` becomes ``filename``. Empty if there is no header.

    Raises:
        UserError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in _PARQUET_SUFFIXES:
        names: Iterable[str] = _parquet_schema(path).names
    elif suffix in _JSON_LINES_SUFFIXES:
        names = _first_object(path)
    elif suffix == ".json":
        names = _keys(_json_objects(path)[0])
    else:
        header = read_lines(path, _is_header).header
        names = split_header(header, find_delimiter(header, _is_known)) if header else ()
    return {_normalised(name) for name in names}


def has_file_column(path: Path) -> bool:
    """Whether a table has a column of audio files."""
    return any(name in _FILE_ALIASES for name in column_names(path))


def _normalised(header: str) -> str:
    return "".join(character for character in header.casefold() if character.isalnum())


def _fields_of(header: Sequence[str], path: Path) -> tuple[dict[str, int], list[str]]:
    """The column index of each field in a header."""
    candidates: dict[str, list[int]] = {}
    normalised = [_normalised(name) for name in header]
    for place, name in enumerate(normalised):
        if (field := _field_of(name, normalised)) is not None:
            candidates.setdefault(field, []).append(place)
    warnings = _check_header(path, header, normalised, candidates)
    if len(candidates["file"]) > 1:
        candidates["file"].sort(key=lambda place: _FILE_ALIASES.index(normalised[place]))
    return {name: places[0] for name, places in candidates.items()}, warnings


def _field_of(name: str, header: Sequence[str]) -> str | None:
    # "offset" is the start of a segment if there is a duration, and its end if there is an onset.
    if name == "offset":
        return "end" if "onset" in header else "start" if "duration" in header else None
    return _FIELD_OF.get(name)


def _check_header(
    path: Path, header: Sequence[str], normalised: Sequence[str], candidates: Mapping[str, list[int]]
) -> list[str]:
    if "emodetail" in normalised:
        raise UserError(f"{path} has one row per annotator; use --labels with labels_consensus.csv instead")
    if "file" not in candidates:
        raise UserError(
            f"{path} has no column of file names among {name_some(list(header), 12)!r}; "
            "name it file, path, filename or audio in the first line"
        )
    for name, places in candidates.items():
        if name != "file" and len(places) > 1:
            columns = " and ".join(repr(header[place]) for place in places)
            raise UserError(f"{path}: columns {columns} both mean {name}; rename or remove one")
    if len(candidates["file"]) == 1:
        return []
    first = min(candidates["file"], key=lambda place: _FILE_ALIASES.index(normalised[place]))
    return [f"{path.name} has several columns of file names; {header[first]!r} was read"]


def _read_delimited(path: Path) -> LabelFile:
    text = read_lines(path, _is_header)
    if text.header is None:
        raise UserError(f"{path} is empty; it must have a header line and one row per audio file")
    delimiter = find_delimiter(text.header, _is_known)
    header = split_header(text.header, delimiter)
    fields, warnings = _fields_of(header, path)
    rows, numbers, skipped = split_rows(text, delimiter, len(header))
    columns = {name: [row[place] for row in rows] for name, place in fields.items()}
    return LabelFile(path, columns, numbers, "line", skipped, [*text.warnings, *warnings])


def _is_header(line: str) -> bool:
    try:
        names = split_header(line, find_delimiter(line, _is_known))
    except csv.Error:
        return False
    return any(_normalised(name) in _FILE_ALIASES for name in names)


def _is_known(header: str) -> bool:
    return _normalised(header) in _FIELD_OF


# --- JSON ---------------------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as a list of pairs, so that repeated keys are kept."""


_Objects = list[tuple[int, Mapping[str, Any]]]


def _json_lines(path: Path) -> tuple[_Objects, list[Skipped], list[str], str]:
    text, warnings = read_text(path)
    objects: _Objects = []
    skipped: list[Skipped] = []
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        value = _parsed(line)
        if isinstance(value, dict):
            objects.append((number, value))
        else:
            skipped.append(Skipped(f"{path.name} line {number}", "not a JSON object"))
    return objects, skipped, warnings, "line"


def _json_objects(path: Path) -> tuple[_Objects, list[Skipped], list[str], str]:
    """Entries of a JSON file: an object that maps file names to objects, or a list of objects."""
    text, warnings = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, list):
        raise UserError(f"{path} must contain an object of labels by file name, not a single value")
    named = isinstance(content, _Pairs)
    objects: _Objects = []
    skipped: list[Skipped] = []
    for number, item in enumerate(content, 1):
        entry = item[1] if named else item
        if not isinstance(entry, _Pairs):
            skipped.append(Skipped(item[0] if named else f"{path.name} entry {number}", "not a JSON object"))
        else:
            objects.append((number, {**dict(entry), "FileName": item[0]} if named else dict(entry)))
    return objects, skipped, warnings, "entry"


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _first_object(path: Path) -> list[str]:
    text = read_text(path)[0]
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    value = _parsed(first)
    return list(value) if isinstance(value, dict) else []


def _keys(objects: _Objects) -> list[str]:
    return list(dict.fromkeys(key for _, item in objects for key in item))


def _from_objects(
    path: Path, objects: _Objects, skipped: list[Skipped], warnings: list[str], unit: str
) -> LabelFile:
    if not objects:
        raise UserError(f"{path} contains no JSON objects with labels")
    keys = _keys(objects)
    fields, header_warnings = _fields_of(keys, path)
    columns = {name: [item.get(keys[place]) for _, item in objects] for name, place in fields.items()}
    numbers = [number for number, _ in objects]
    return LabelFile(path, columns, numbers, unit, skipped, [*warnings, *header_warnings])


# --- Parquet ------------------------------------------------------------------------------------------


def _parquet_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path} as Parquet: {' '.join(str(error).split())}") from None


def _read_parquet(path: Path) -> LabelFile:
    schema = _parquet_schema(path)
    plain = [item.name for item in schema if not _is_embedded(item.type)]
    if len(plain) < len(schema.names) and not any(_normalised(name) in _FILE_ALIASES for name in plain):
        raise UserError(
            f"{path} has embedded audio; write the audio to files and list their names in a column 'file'"
        )
    fields, warnings = _fields_of(plain, path)
    names = [plain[place] for place in fields.values()]
    try:
        table = pq.read_table(path, columns=list(dict.fromkeys(names)))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path} as Parquet: {' '.join(str(error).split())}") from None
    columns = {name: table[column].to_pylist() for name, column in zip(fields, names, strict=True)}
    return LabelFile(path, columns, range(1, table.num_rows + 1), "row", (), warnings)


def _is_embedded(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
