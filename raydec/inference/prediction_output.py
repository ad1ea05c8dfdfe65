"""Prediction tables that are written in parts, so that an interrupted command can be resumed."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from raydec.errors import UserError
from raydec.files.atomic import TEMPORARY_PREFIX, publish, temporary_file, write_arrow, write_text

_STATE_FILE = "state.json"
_FORMATS = (".csv", ".parquet")
_PART = "part-"
_ROWS_PER_BLOCK = 10_000


@dataclass(frozen=True)
class PredictionCounts:
    """The content of a finished file.

    Attributes:
        rows: all of them.
        failed: those that have an error instead of scores.
        first_error: file and error of the first of these.
    """

    rows: int
    failed: int
    first_error: str | None = None


@dataclass(frozen=True)
class DoneFile:
    """A file that has rows.

    Attributes:
        starts: where its rows begin, in seconds.
        is_failed: it could not be read, in part or as a whole, and is worth a retry.
    """

    starts: frozenset[float]
    is_failed: bool


class PredictionOutput:
    """A CSV or Parquet file of predictions, and beside it a hidden folder of parts while it is made.

    The folder ``.NAME.parts`` keeps ``state.json``, which says what the predictions were made with; rows of
    different models are never mixed.

    Args:
        path: ``.csv`` or ``.parquet``.
        schema: columns, ``file``, ``start`` and ``error`` among them.
        made_with: JSON values that decide the rows: the model, the window length.
        restart: discard existing rows.

    Raises:
        UserError: another kind of file, or one made with other settings or by another program.
    """

    def __init__(self, path: Path, schema: pa.Schema, made_with: Mapping[str, Any], restart: bool) -> None:
        if path.suffix.lower() not in _FORMATS:
            raise UserError(f"--out {path}: the name must end in .csv or .parquet")
        if path.is_dir():
            raise UserError(f"--out {path} is a folder; name a .csv or .parquet file")
        self.path = path
        self._schema = schema
        self._parts = path.with_name(f".{path.name}.parts")
        try:
            if restart:
                self._forget()
            self._check_state(dict(made_with))
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None
        self._num_parts = 1 + max((_number(part) for part in self._part_files()), default=-1)

    def done(self, harmless: str) -> dict[str, DoneFile]:
        """Files that have rows; of a file written several times, the last rows count.

        Args:
            harmless: an error that does not make a file failed if other rows of it have scores.
        """
        done: dict[str, DoneFile] = {}
        for table in self._read():
            rows: dict[str, list[tuple[float | None, str | None]]] = {}
            names = ("file", "start", "error")
            for file, *row in zip(*(table[name].to_pylist() for name in names), strict=True):
                rows.setdefault(file, []).append((row[0], row[1]))
            done |= {file: _done_file(found, harmless) for file, found in rows.items()}
        return done

    def add(self, table: pa.Table) -> None:
        """Write rows to disk; all rows of a file must come in one call."""
        batch = table.combine_chunks().to_batches(max_chunksize=max(1, table.num_rows))
        if not batch:
            return
        write_arrow(self._parts / f"{_PART}{self._num_parts:06d}.arrow", batch[0])
        self._num_parts += 1

    def finish(self, order: Sequence[str]) -> PredictionCounts:
        """Write the file, in the order of ``order``, and drop the parts.

        Args:
            order: files as asked for now; rows of files asked for earlier come before them.
        """
        table = _latest(self._schema, list(self._read()))
        files = table["file"].to_pylist()
        rank = {file: place for place, file in enumerate(order)}
        rows = sorted(range(len(files)), key=lambda row: rank.get(files[row], -1))
        # Rows are read from mapped files and written in blocks, because embeddings may not fit in memory.
        blocks = (
            table.take(pa.array(rows[start : start + _ROWS_PER_BLOCK], pa.int64()))
            for start in range(0, max(1, len(rows)), _ROWS_PER_BLOCK)
        )
        with temporary_file(self.path.parent) as file:
            if self.path.suffix.lower() == ".csv":
                _write_csv(self._schema.names, blocks, file)
            else:
                _write_parquet(self._schema, blocks, file)
            publish(file, self.path)
        for leftover in (*self._part_files(), *self._parts.glob(f"{TEMPORARY_PREFIX}*")):
            leftover.unlink()
        return _count(table)

    def _forget(self) -> None:
        if self._parts.exists():
            shutil.rmtree(self._parts)
        self.path.unlink(missing_ok=True)

    def _check_state(self, made_with: dict[str, Any]) -> None:
        state = self._parts / _STATE_FILE
        remedy = "add --restart to replace it, or choose another --out"
        if state.exists():
            try:
                before = json.loads(state.read_text(encoding="utf-8"))
            except ValueError:
                raise UserError(f"{state} is damaged; {remedy}") from None
            if before != made_with:
                raise UserError(f"{self.path} was made with another model or other options; {remedy}")
            return
        if self.path.exists():
            raise UserError(f"{self.path} exists already; {remedy}")
        self._parts.mkdir(parents=True, exist_ok=True)
        write_text(state, json.dumps(made_with))

    def _read(self) -> Iterator[pa.Table]:
        """Rows of the finished file, then of the parts."""
        try:
            if self.path.exists():
                is_csv = self.path.suffix.lower() == ".csv"
                table = read_csv(self.path, self._schema) if is_csv else pq.read_table(self.path)
                yield table.select(self._schema.names).cast(self._schema)
            for part in self._part_files():
                with pa.memory_map(str(part)) as source:
                    yield pa.ipc.open_file(source).read_all().cast(self._schema)
        except (pa.ArrowException, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{self.path} was changed and cannot be resumed: {reason}; add --restart"
            ) from None

    def _part_files(self) -> list[Path]:
        return sorted(self._parts.glob(f"{_PART}*.arrow"), key=_number)


def _done_file(rows: Sequence[tuple[float | None, str | None]], harmless: str) -> DoneFile:
    errors = [error for _, error in rows if error is not None]
    is_failed = len(errors) == len(rows) or any(error != harmless for error in errors)
    return DoneFile(frozenset(start for start, _ in rows if start is not None), is_failed)


def _count(table: pa.Table) -> PredictionCounts:
    failed = table.filter(pc.is_valid(table["error"]))
    first = f"{failed['file'][0]}: {failed['error'][0]}" if len(failed) else None
    return PredictionCounts(len(table), len(failed), first)


def _number(part: Path) -> int:
    digits = part.stem.removeprefix(_PART)
    return int(digits) if digits.isdecimal() else -1


def _latest(schema: pa.Schema, tables: Sequence[pa.Table]) -> pa.Table:
    """All rows, each file's from the last table that has it.

    A file that was tried again is in several, and one that was predicted before a crash may be.
    """
    kept = [schema.empty_table()]
    known: set[str] = set()
    for table in reversed(tables):
        files = table["file"].to_pylist()
        is_new = [file not in known for file in files]
        kept.append(table if all(is_new) else table.filter(pa.array(is_new, pa.bool_())))
        known.update(files)
    return pa.concat_tables(reversed(kept))


def _write_parquet(schema: pa.Schema, blocks: Iterable[pa.Table], file: BinaryIO) -> None:
    with pq.ParquetWriter(file, schema) as writer:
        for block in blocks:
            writer.write_table(block)


def _write_csv(names: Sequence[str], blocks: Iterable[pa.Table], file: BinaryIO) -> None:
    # Python's writer quotes only what needs quotes; Arrow's quotes every name.
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for block in blocks:
        writer.writerows(zip(*(column.to_pylist() for column in block.columns), strict=True))
    text.flush()
    text.detach()


def read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    """The rows of a CSV file of predictions, with the types of ``schema``."""
    types = {field.name: field.type for field in schema}
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True),
    )
