"""Predict lists of files: spectrograms on one side, the network on the other, rows at the end.

The two sides need nothing of each other but spectrograms, so that they may run in different processes:
reading on every CPU, the network wherever it is fast.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from raydec.corpus.audio_files import printable
from raydec.errors import AudioError
from raydec.files.remote import local_copy
from raydec.inference.prediction import Predictions, Predictor, decode_for
from raydec.model.saved import SavedModel

# Utterances whose frames are in memory together.
_UTTERANCES_IN_MEMORY = 256
PHASES = ("decode", "mel", "network")

Spectrogram = tuple[dict[str, Any], Float[Tensor, "frame mel"] | None]
"""A row without scores, and the mel frames to predict them from; without frames the row has its error."""


@dataclass(frozen=True)
class RowOptions:
    """What rows are made of.

    Attributes:
        window_s: predict windows of this many seconds instead of whole files. They follow each other without
            overlap; a rest shorter than half a window joins the last one.
        embeddings: add the column ``embedding``, float32 ``[d]``.
        distances: add the column ``cluster_distances``, float32 ``[cluster]``.
        clip: limit scores to this range.
    """

    window_s: float | None = None
    embeddings: bool = False
    distances: bool = False
    clip: tuple[float, float] | None = None


WHOLE_FILES = RowOptions()


@dataclass
class CpuClock:
    """CPU seconds of this process by phase: decoding, mel-spectrograms, the network.

    Attributes:
        seconds: by the names in ``PHASES``.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what the block uses, on all of this process's threads."""
        begun = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.process_time() - begun


def result_schema(predictor: Predictor, options: RowOptions = WHOLE_FILES) -> pa.Schema:
    """Columns of rows: file, start, end, one per attribute, classes, cluster, those asked for, error.

    A group of classes has a column of its name for the most probable class, and one per class for its
    probability.
    """
    outputs = predictor.outputs
    columns = [
        ("file", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        *((name, pa.float64()) for name in outputs.attributes),
        *((group, pa.string()) for group in outputs.classes),
        *((name, pa.float64()) for name in outputs.names[len(outputs.attributes) :]),
        ("cluster", pa.int64()),
    ]
    if options.embeddings:
        columns.append(("embedding", pa.list_(pa.float32(), predictor.embedding_dim)))
    if options.distances:
        columns.append(("cluster_distances", pa.list_(pa.float32(), predictor.num_centroids or 0)))
    return pa.schema([*columns, ("error", pa.string())])


def predict_files(
    predictor: Predictor,
    files: Sequence[str],
    options: RowOptions = WHOLE_FILES,
    clock: CpuClock | None = None,
) -> pa.Table:
    """Predict a list of files in this process.

    Args:
        predictor: a loaded model.
        files: audio files or URIs of such.
        options: what rows are made of.
        clock: counts the CPU time.

    Returns:
        One row per file or window, in order; ``start`` and ``end`` in seconds. What cannot be predicted is
        a row with the reason in ``error``.
    """
    clock = clock or CpuClock()
    spectrograms = read_spectrograms(predictor.saved, files, options.window_s, clock)
    return score_spectrograms(predictor, spectrograms, options, clock)


def score_spectrograms(
    predictor: Predictor, spectrograms: Iterable[Spectrogram], options: RowOptions, clock: CpuClock
) -> pa.Table:
    """Rows with scores, in order; no more than some hundred spectrograms are taken at a time."""
    rows: list[dict[str, Any]] = []
    waiting = iter(spectrograms)
    while block := list(itertools.islice(waiting, _UTTERANCES_IN_MEMORY)):
        readable = [(row, frames) for row, frames in block if frames is not None]
        with clock.phase("network"):
            result = predictor.predict_frames(
                [frames for _, frames in readable], details=options.embeddings or options.distances
            )
        for i, (row, _) in enumerate(readable):
            row.update(_scores(predictor, result, i, options))
        rows += [row for row, _ in block]
    return pa.Table.from_pylist(rows, schema=result_schema(predictor, options))


def _scores(predictor: Predictor, result: Predictions, i: int, options: RowOptions) -> dict[str, Any]:
    outputs, scores = predictor.outputs, result.scores[i].copy()
    if options.clip is not None:
        numbers = slice(len(outputs.attributes))
        scores[numbers] = np.clip(scores[numbers], *options.clip)
    row: dict[str, Any] = dict(zip(outputs.names, scores.tolist(), strict=True))
    row |= {group: max(found, key=found.__getitem__) for group, found in outputs.by_class(scores).items()}
    row["cluster"] = None if result.clusters is None else int(result.clusters[i])
    row["embedding"] = None if result.embeddings is None else result.embeddings[i]
    row["cluster_distances"] = None if result.distances is None else result.distances[i]
    return row


def read_spectrograms(
    saved: SavedModel, files: Iterable[str], window_s: float | None, clock: CpuClock, folder: str = ""
) -> Iterator[Spectrogram]:
    """Decode files and compute their spectrograms, one after the other, for a model.

    Args:
        saved: its features and resampler decide; its networks are not used.
        files: audio files or URIs of such.
        window_s: see :class:`RowOptions`.
        clock: counts the CPU time.
        folder: what relative names are relative to; default: this process's working directory.
    """
    rate = saved.front_end.sample_rate
    for file in files:
        name = printable(file)
        try:
            with clock.phase("decode"), local_copy(file, folder) as path:
                waveform = decode_for(saved, path)
        except AudioError as error:
            yield {"file": name, "error": error.reason}, None
            continue
        window = len(waveform) if window_s is None else max(1, round(window_s * rate))
        for start, stop in window_bounds(len(waveform), window):
            row: dict[str, Any] = {"file": name, "start": start / rate, "end": stop / rate}
            samples = waveform[start:stop]
            if not samples.any():
                yield row | {"error": "silent: every sample is zero"}, None
                continue
            with clock.phase("mel"):
                frames = saved.front_end.frames(samples)
            yield row, frames


def window_bounds(num_samples: int, window: int) -> list[tuple[int, int]]:
    """First and one past the last sample of each window; see :class:`RowOptions`."""
    num_windows = max(1, num_samples // window + (num_samples % window * 2 >= window))
    return list(itertools.pairwise([*range(0, num_windows * window, window), num_samples]))


_FRAMES_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("error", pa.string()),
        ("frames", pa.large_binary()),
    ]
)


@dataclass(frozen=True)
class Reader:
    """From file names to packed spectrograms; holds no network, so it is cheap to send to any process.

    Attributes:
        saved: a model without its networks.
        window_s: see :class:`RowOptions`.
        folder: what relative names are relative to.
    """

    saved: SavedModel
    window_s: float | None
    folder: str

    def __call__(self, files: Sequence[str]) -> bytes:
        """Spectrograms and the CPU time that they took."""
        clock = CpuClock()
        spectrograms = list(read_spectrograms(self.saved, files, self.window_s, clock, self.folder))
        return pack_spectrograms(spectrograms, clock)


class Scorer:
    """From packed spectrograms to packed rows.

    Args:
        saved: the model.
        device: where its networks run.
        options: what rows are made of.
    """

    def __init__(self, saved: SavedModel, device: str, options: RowOptions) -> None:
        self._predictor = Predictor(saved, torch.device(device))
        self._options = options

    def __call__(self, spectrograms: bytes) -> bytes:
        """Rows, and the CPU time that they and their spectrograms took."""
        found, clock = unpack_spectrograms(spectrograms, self._predictor.saved.front_end.width)
        return pack_table(score_spectrograms(self._predictor, found, self._options, clock), clock)


def pack_spectrograms(spectrograms: Iterable[Spectrogram], clock: CpuClock) -> bytes:
    """Spectrograms as bytes, for another process."""
    rows = [
        row | {"frames": None if frames is None else frames.numpy().tobytes()} for row, frames in spectrograms
    ]
    return pack_table(pa.Table.from_pylist(rows, schema=_FRAMES_SCHEMA), clock)


def unpack_spectrograms(content: bytes, width: int) -> tuple[list[Spectrogram], CpuClock]:
    """What :func:`pack_spectrograms` packed, and the CPU time that it took."""
    table, clock = unpack_table(content)
    found: list[Spectrogram] = []
    for row in table.to_pylist():
        frames = row.pop("frames")
        if frames is None:
            found.append(({name: value for name, value in row.items() if value is not None}, None))
        else:
            values = np.frombuffer(frames, np.float32).reshape(-1, width).copy()
            found.append((row, torch.from_numpy(values)))
    return found, clock


def pack_table(table: pa.Table, clock: CpuClock) -> bytes:
    """A table and the CPU time that it took, as an Arrow stream."""
    metadata = {name: repr(seconds) for name, seconds in clock.seconds.items()}
    table = table.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def unpack_table(content: bytes) -> tuple[pa.Table, CpuClock]:
    """What :func:`pack_table` packed."""
    table = pa.ipc.open_stream(content).read_all()
    metadata = table.schema.metadata or {}
    seconds = {name: float(metadata[name.encode()]) for name in PHASES}
    return table.replace_schema_metadata(None), CpuClock(seconds)
