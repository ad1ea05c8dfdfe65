"""Predictions of any program in a table, scored like those of a model: same intervals, same paired tests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from raydec.config import ATTRIBUTES
from raydec.corpus.label_file import LabelFile, read_label_file
from raydec.corpus.segments import segment_of
from raydec.corpus.table import name_some
from raydec.errors import UserError
from raydec.evaluation.result import ModelIdentity
from raydec.features.store import FeatureStore
from raydec.files.atomic import file_sha256
from raydec.inference.prediction import Predictions
from raydec.model.outputs import Outputs


def is_predictions_file(path: str | Path) -> bool:
    """Whether a path is a table of predictions, not a model directory."""
    return Path(path).is_file()


class PredictionsFile:
    """Predictions of another program, matched to the utterances of a feature store by file name.

    A row's ``file`` is the name of an utterance, a path that ends in it, or the name without its folders or
    without its extension. ``start`` and ``end`` identify segments.

    Args:
        path: a table in any form that label files have: ``file`` and a column per attribute, in the scale of
            the labels.

    Attributes:
        identity: the file, in an evaluation.
        outputs: the attributes that it has.

    Raises:
        UserError: it cannot be read, has no attribute, or a cell that is not a number.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        table = read_label_file(self._path)
        if table.skipped:
            raise UserError(f"{table.skipped[0].file}: {table.skipped[0].reason}")
        columns = {name: _numbers(table, name) for name in ATTRIBUTES if name in table.columns}
        present = [name for name, values in columns.items() if not np.isnan(values).all()]
        if not present:
            raise UserError(f"{path} has no column of predictions; name one arousal, dominance or valence")
        self.outputs = Outputs(tuple(present), (0.0,) * len(present), (1.0,) * len(present))
        self._scores = np.stack([columns[name] for name in present], axis=1)
        self._names = _row_names(table)
        self.identity = ModelIdentity(str(path), file_sha256(self._path), None, tuple(present), {})

    def predict_store(self, store: FeatureStore, rows: Int64[np.ndarray, " row"]) -> Predictions:
        """The predictions of utterances of a store.

        Raises:
            UserError: utterances have no prediction, or several.
        """
        names = store.utterances["utterance_id"].take(pa.array(rows)).to_pylist()
        found = _Matcher(self._names, self._scores)
        places = [found.place_of(name) for name in names]
        missing = [name for name, place in zip(names, places, strict=True) if place is None]
        if missing:
            raise UserError(
                f"{self._path} has no prediction for {len(missing)} of {len(names)} utterances "
                f"({name_some(missing)}); add their rows, or score other splits with --split"
            )
        several = [name for name, place in zip(names, places, strict=True) if place is not None and place < 0]
        if several:
            raise UserError(
                f"{self._path} has several rows for {len(several)} of {len(names)} utterances "
                f"({name_some(several)}); give one row per utterance"
            )
        return Predictions(self._scores[np.array(places, int)], None)


class _Matcher:
    """Finds the row of an utterance: by its name, then without folders, then without extensions."""

    def __init__(self, names: Sequence[str], scores: Float64[np.ndarray, "row attribute"]) -> None:
        usable = [place for place, row in enumerate(scores) if not np.isnan(row).any()]
        self._tiers = [_index(usable, names, key) for key in _KEYS]

    def place_of(self, name: str) -> int | None:
        """The number of its row; None for no row, -1 for several."""
        for key, index in zip(_KEYS, self._tiers, strict=True):
            places = index.get(key(name))
            if places:
                return places[0] if len(places) == 1 else -1
        return None


def _index(usable: Iterable[int], names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    index: dict[str, list[int]] = defaultdict(list)
    for place in usable:
        index[key(names[place])].append(place)
    return index


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _stem(name: str) -> str:
    base, bracket, segment = _base(name).partition("[")
    stem, dot, extension = base.rpartition(".")
    return (stem if dot and extension.isalnum() else base).casefold() + bracket + segment


_KEYS: tuple[Callable[[str], str], ...] = (str, _base, _stem)


def _row_names(table: LabelFile) -> list[str]:
    """Names of rows as utterances are named; a file of several rows is one of segments."""
    files = [str(cell).strip() for cell in table.columns["file"]]
    if len(set(files)) == len(files) or "start" not in table.columns:
        return files
    ends = table.columns.get("end", [None] * len(files))
    cells = zip(files, table.columns["start"], ends, strict=True)
    try:
        return [segment_of(start, end).name_in(file) for file, start, end in cells]
    except ValueError as error:
        raise UserError(f"{table.path}: {error}") from None


def _numbers(table: LabelFile, name: str) -> Float64[np.ndarray, " row"]:
    values = np.full(len(table.numbers), np.nan)
    for row, cell in enumerate(table.columns[name]):
        if cell is None or not str(cell).strip():
            continue
        try:
            values[row] = float(cell)
        except (TypeError, ValueError):
            raise UserError(f"{table.place(row)}: {name} {cell!r} is not a number") from None
        if math.isinf(values[row]):
            raise UserError(f"{table.place(row)}: {name} is infinite")
    return values
