"""Reads a feature store: the frames of a whole corpus in memory-mapped Arrow files.

A store is a folder::

    store.json          front end, statistics, counts, checksums; written last, so it marks a finished store
    utterances.arrow    one row per utterance: the corpus table and the location of its frames
    frames-00000.arrow  one record batch, one column: fixed-size lists of float16, that is [frame, value]
    skipped.csv         files and rows that were skipped, with reasons

The content of a frame depends on the front end: mel *power*, or a pretrained encoder's output for a chunk. As
float16, values from 6.1e-5 to 65504 keep 11 significant bits (a relative error of at most 4.9e-4); smaller
ones have an absolute error of at most 3.0e-8, and larger ones are clamped to 65504 (mel power of a
peak-normalised waveform is far below that). :mod:`raydec.features.store_writer` writes stores.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float16, Float32, Int64

from raydec.config import ATTRIBUTES
from raydec.corpus.table import labeled_mask
from raydec.errors import UserError
from raydec.features.front_end import FrontEnd, Scale, front_end_of
from raydec.files.atomic import file_sha256
from raydec.splits import CANONICAL_SPLITS, canonical_split

SCHEMA_VERSION = 1
STORE_FILE, UTTERANCES_FILE, SKIPPED_FILE = "store.json", "utterances.arrow", "skipped.csv"
FRAMES_FILE = re.compile(r"frames-\d{5,}\.arrow")
PLACE_FIELDS = (
    pa.field("num_frames", pa.int32(), nullable=False),
    pa.field("shard", pa.int32(), nullable=False),
    pa.field("first_frame", pa.int64(), nullable=False),
    pa.field("duration_s", pa.float64(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False),
)
"""Columns of ``utterances.arrow`` after those of the corpus table: location of the frames, and identity of
the audio file."""


@dataclass(frozen=True)
class LabelStats:
    """Statistics of one attribute's labels over the train split.

    Attributes:
        mean: in the scale of the labels.
        std: population standard deviation.
        count: labeled utterances.
    """

    mean: float
    std: float
    count: int


@dataclass(frozen=True)
class Shard:
    """One frames file.

    Attributes:
        file: its name in the store's folder.
        num_frames: frames in it.
        data_offset: byte at which the contiguous float16 frames begin.
        sha256: of the whole file.
    """

    file: str
    num_frames: int
    data_offset: int
    sha256: str


class FeatureStore:
    """A finished feature store, opened read-only. Pickling it pickles its path, never its frames.

    Attributes:
        path: absolute path of its folder.
        front_end: the front end of its frames.
        corpus_name: name of its corpus.
        synthetic: whether its corpus is synthetic.
        utterances: one row per utterance, columns of the corpus table and :data:`PLACE_FIELDS`.
        label_range: lowest and highest valid label of the corpus; None if the store does not record it.
        label_stats: per attribute that has labels in the train split.
        normalization_source: the frames from which the statistics were computed: ``labeled_train``, or
            ``unlabeled`` or ``all`` in a store without labeled training utterances; ``other splits`` if the
            splits have been replaced.
    """

    path: Path
    front_end: FrontEnd
    corpus_name: str
    synthetic: bool
    label_range: tuple[float, float] | None
    utterances: pa.Table
    label_stats: dict[str, LabelStats]
    normalization_source: str

    @classmethod
    def open(cls, path: str | Path, front_end: FrontEnd | None = None) -> FeatureStore:
        """Open a store of a given front end (default: any, with the parameters of this version).

        Raises:
            UserError: the store does not exist, is unfinished or damaged, or has another schema version or
                front end; the message names the differences.
        """
        folder = Path(path).absolute()
        content = read_store_file(folder)
        store = cls()
        try:
            store._fill(folder, content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(folder, STORE_FILE, f"{type(error).__name__}: {error}") from None
        differences = store.front_end.differences(front_end or store.front_end.of_this_version())
        if differences:
            raise UserError(
                f"{folder} contains features with other parameters: {', '.join(differences)}; "
                "prepare the corpus again in another folder"
            )
        store._check_places()
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        changed = {name: self.utterances[name] for name in self._changed_columns}
        return _reopened, (self.path, self.front_end, changed)

    def with_columns(self, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> FeatureStore:
        """The same store with other values in some columns of its table, such as ``split`` or a label.

        Args:
            columns: name of an existing column to one value per row, of the same type.
        """
        other = copy.copy(self)
        for name, values in columns.items():
            place = other.utterances.column_names.index(name)
            other.utterances = other.utterances.set_column(place, name, values)
        other.normalization_source = "other splits or labels"
        other._changed_columns = tuple(dict.fromkeys((*self._changed_columns, *columns)))
        return other

    def __len__(self) -> int:
        return self.utterances.num_rows

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have utterances, canonical names first."""
        present = pc.unique(self.utterances["split"]).to_pylist()
        known = [split for split in CANONICAL_SPLITS if split in present]
        return (*known, *sorted(set(present) - set(known)))

    def rows(
        self, split: str | Sequence[str] | None = None, labeled_for: Sequence[str] | None = None
    ) -> Int64[np.ndarray, " row"]:
        """Row numbers of utterances, in the store's order.

        Args:
            split: restrict to this split, or these; a split without utterances has no rows.
            labeled_for: restrict to utterances with a label in at least one of these columns.
        """
        chosen: Bool[np.ndarray, " utterance"] = np.ones(len(self), dtype=bool)
        if split is not None:
            names = [split] if isinstance(split, str) else split
            wanted = pa.array([canonical_split(name) for name in names], pa.string())
            chosen &= pc.is_in(self.utterances["split"], wanted).to_numpy()
        if labeled_for is not None:
            chosen &= labeled_mask(self.utterances, labeled_for).to_numpy()
        return np.flatnonzero(chosen)

    def frame_statistics(
        self, scale: Scale
    ) -> tuple[Float32[np.ndarray, " width"], Float32[np.ndarray, " width"]]:
        """Mean and population standard deviation per value of the labeled training frames on this scale."""
        return self._statistics[scale]

    def frames(self, row: int | np.integer) -> Float16[np.ndarray, "frame width"]:
        """Frames of one utterance: a read-only view of the memory map, without a copy."""
        first = self._first_frame[row]
        return self.shard_frames(int(self._shard[row]))[first : first + self._num_frames[row]]

    def shard_frames(self, shard: int) -> Float16[np.ndarray, "frame width"]:
        """All frames of one shard: a read-only view of the memory map, which is created on first use."""
        if (mapped := self._mapped[shard]) is None:
            mapped = self._mapped[shard] = self._map(self.shards[shard])
        return mapped

    def verify(self) -> None:
        """Read every file and verify its checksum.

        Raises:
            UserError: a file was changed; the message names it.
        """
        expected = {UTTERANCES_FILE: self._utterances_sha256, **{s.file: s.sha256 for s in self.shards}}
        for name, sha256 in expected.items():
            if file_sha256(self.path / name) != sha256:
                raise damaged(self.path, name, "its checksum differs from the one in store.json")

    def _fill(self, folder: Path, content: dict[str, Any]) -> None:
        self.path = folder
        self._changed_columns: tuple[str, ...] = ()
        self.front_end = front_end_of(content)
        self.corpus_name = content["corpus"]["name"]
        self.synthetic = content["corpus"]["synthetic"]
        limits = content["corpus"].get("label_range")
        self.label_range = None if limits is None else (float(limits[0]), float(limits[1]))
        self.label_stats = {name: LabelStats(**values) for name, values in content["labels"].items()}
        statistics = content["normalization"]
        self.normalization_source = statistics["frames_of"]
        scales = self.front_end.scales
        self._statistics = {scale: _frame_statistics(statistics[scale]) for scale in scales}
        self.shards = tuple(Shard(**shard) for shard in content["shards"])
        self._utterances_sha256 = content["utterances"]["sha256"]
        self._mapped: list[np.ndarray | None] = [None] * len(self.shards)
        self.utterances = _read_utterances(folder)
        self._num_frames = self.utterances["num_frames"].to_numpy().astype(np.int64)
        self._first_frame = self.utterances["first_frame"].to_numpy()
        self._shard = self.utterances["shard"].to_numpy()

    def _check_places(self) -> None:
        """Check that every frames file is long enough, and that every utterance lies inside its file."""
        for shard in self.shards:
            needed = shard.data_offset + shard.num_frames * self._frame_bytes
            if not FRAMES_FILE.fullmatch(shard.file) or not (self.path / shard.file).is_file():
                raise damaged(self.path, shard.file, "it is missing")
            if (self.path / shard.file).stat().st_size < needed:
                raise damaged(self.path, shard.file, f"it is shorter than its {needed} bytes of frames")
        lengths = np.array([shard.num_frames for shard in self.shards], dtype=np.int64)
        inside = (self._shard >= 0) & (self._shard < len(lengths))
        ends = self._first_frame + self._num_frames
        if not inside.all() or (self._first_frame < 0).any() or (ends > lengths[self._shard]).any():
            raise damaged(self.path, UTTERANCES_FILE, "an utterance lies outside its frames file")

    @property
    def _frame_bytes(self) -> int:
        return 2 * self.front_end.width

    def _map(self, shard: Shard) -> Float16[np.ndarray, "frame width"]:
        # Arrow closes the file and keeps the mapping; numpy's memmap would keep a file descriptor per shard.
        with pa.memory_map(str(self.path / shard.file)) as source:
            content = source.read_buffer()
        num_values = shard.num_frames * self.front_end.width
        values = np.frombuffer(content, np.float16, num_values, shard.data_offset)
        return values.reshape(shard.num_frames, self.front_end.width)


def _reopened(path: Path, front_end: FrontEnd, changed: Mapping[str, pa.ChunkedArray]) -> FeatureStore:
    store = FeatureStore.open(path, front_end)
    return store.with_columns(changed) if changed else store


def read_store_file(folder: Path) -> dict[str, Any]:
    """The content of ``store.json``.

    Raises:
        UserError: it is missing (no store, or an unfinished one), unreadable or of another version.
    """
    try:
        content = json.loads((folder / STORE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(_why_no_store(folder)) from None
    except OSError as error:
        raise UserError(f"cannot read {folder / STORE_FILE}: {error.strerror or error}") from None
    except ValueError as error:
        raise damaged(folder, STORE_FILE, f"it is not JSON: {error}") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{folder} has schema version {version}, but this raydec reads {SCHEMA_VERSION}; "
            "prepare the corpus again in another folder"
        )
    return content


def damaged(folder: Path, name: str, why: str) -> UserError:
    """The error for a damaged store."""
    return UserError(
        f"feature store {folder} is damaged at {name}: {why}; prepare it again with "
        "'python -m raydec.prepare ... --restart'"
    )


def _why_no_store(folder: Path) -> str:
    if not folder.is_dir():
        return f"no feature store at {folder}: no such folder; make one with 'python -m raydec.prepare'"
    if any(FRAMES_FILE.fullmatch(entry.name) for entry in folder.iterdir()):
        return (
            f"feature store {folder} is unfinished; run the same 'python -m raydec.prepare' again to resume"
        )
    return f"{folder} is not a feature store (no store.json); make one with 'python -m raydec.prepare'"


def _frame_statistics(values: dict[str, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(values["mean"], dtype=np.float32), np.asarray(values["std"], dtype=np.float32)


def _read_utterances(folder: Path) -> pa.Table:
    path = folder / UTTERANCES_FILE
    try:
        with pa.OSFile(str(path), "rb") as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowException) as error:
        raise damaged(folder, UTTERANCES_FILE, str(error)) from None
    missing = {"utterance_id", "split", "speaker", *ATTRIBUTES, *(field.name for field in PLACE_FIELDS)}
    missing -= set(table.column_names)
    if missing:
        raise damaged(folder, UTTERANCES_FILE, f"it lacks columns {', '.join(sorted(missing))}")
    return table.combine_chunks()
