"""Rows of predictions, in two steps: spectrograms from recordings, then scores from spectrograms.

The steps share only spectrograms, so they may run in different processes: reading on every CPU, the network
on the fastest device.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from raydec.corpus.audio_files import printable
from raydec.corpus.segments import Segment
from raydec.errors import AudioError
from raydec.features.audio import Recording
from raydec.files.remote import local_copy
from raydec.inference.audio_inputs import Source
from raydec.inference.pauses import SPEECH_FINDERS
from raydec.inference.prediction import SILENT, Predictions, Predictor
from raydec.inference.spectrograms import frames_of, in_samples, open_recording, windows_of
from raydec.model.trained import TrainedModel

# Frames that are in memory at the same time, unless a single utterance has more.
_BYTES_IN_MEMORY = 32 << 20
PHASES = ("decode", "mel", "network")

Spectrogram = tuple[dict[str, Any], Float[Tensor, "_ mel"] | None]
"""A row without scores, and the mel frames to predict them from; without frames the row has its error."""


@dataclass(frozen=True)
class RowOptions:
    """Settings of the rows.

    Attributes:
        window_s: predict windows of this many seconds instead of whole files.
        hop_s: seconds from the start of a window to that of the next; None means that they do not overlap. A
            rest shorter than half a hop joins the last window.
        segments: predict the stretches of speech between pauses instead of whole files, by one of
            :data:`raydec.inference.pauses.SPEECH_FINDERS`.
        embeddings: add the column ``embedding``, float32 ``[d]``.
        distances: add the column ``cluster_distances``, float32 ``[cluster]``.
        clip: limit scores to this range.
        speaker_offsets: float32 ``[width]``, what is subtracted from the features of each known speaker.
    """

    window_s: float | None = None
    hop_s: float | None = None
    segments: str | None = None
    embeddings: bool = False
    distances: bool = False
    clip: tuple[float, float] | None = None
    speaker_offsets: Mapping[str, np.ndarray] | None = None


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
        """Count the CPU time of the block, over all threads of this process."""
        begun = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.process_time() - begun


def result_schema(predictor: Predictor, options: RowOptions = WHOLE_FILES) -> pa.Schema:
    """Columns of rows: file, start, end, attributes, classes, cluster, requested ones, warning, error.

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
    return pa.schema([*columns, ("warning", pa.string()), ("error", pa.string())])


def predict_files(
    predictor: Predictor,
    files: Sequence[Source | str],
    options: RowOptions = WHOLE_FILES,
    clock: CpuClock | None = None,
) -> pa.Table:
    """Predict a list of files in this process.

    Args:
        predictor: a loaded model.
        files: audio files, or segments of such.
        options: what rows are made of.
        clock: counts the CPU time.

    Returns:
        One row per file, segment or window, in order; ``start`` and ``end`` in seconds, to the millisecond.
        A failed prediction is a row with the reason in ``error``; problems of a usable recording are in
        ``warning``.
    """
    clock = clock or CpuClock()
    spectrograms = read_spectrograms(predictor.trained, files, options, clock)
    return score_spectrograms(predictor, spectrograms, options, clock)


def score_spectrograms(
    predictor: Predictor, spectrograms: Iterable[Spectrogram], options: RowOptions, clock: CpuClock
) -> pa.Table:
    """Rows with scores, in order; spectrograms are read in batches of limited size."""
    rows: list[dict[str, Any]] = []
    for block in _blocks(spectrograms):
        rows += _scored(predictor, block, options, clock)
        del block  # else it would stay in memory while the next one is read
    return pa.Table.from_pylist(rows, schema=result_schema(predictor, options))


def _scored(
    predictor: Predictor, block: Sequence[Spectrogram], options: RowOptions, clock: CpuClock
) -> list[dict[str, Any]]:
    readable = [(row, frames) for row, frames in block if frames is not None]
    with clock.phase("network"):
        result = predictor.predict_frames(
            [frames for _, frames in readable],
            details=options.embeddings or options.distances,
            offsets=_offsets([row.get("speaker") for row, _ in readable], options),
        )
    for i, (row, _) in enumerate(readable):
        row.update(_scores(predictor, result, i, options))
    return [row for row, _ in block]


def _offsets(speakers: Sequence[str | None], options: RowOptions) -> list[Tensor | None] | None:
    if options.speaker_offsets is None:
        return None
    found = [None if speaker is None else options.speaker_offsets.get(speaker) for speaker in speakers]
    # Copied, because arrays from Ray are read-only and torch warns about those.
    return [None if offset is None else torch.tensor(offset) for offset in found]


def _blocks(spectrograms: Iterable[Spectrogram]) -> Iterator[list[Spectrogram]]:
    block: list[Spectrogram] = []
    num_bytes = 0
    for row, frames in spectrograms:
        block.append((row, frames))
        num_bytes += 0 if frames is None else frames.nbytes
        if num_bytes >= _BYTES_IN_MEMORY:
            yield block
            block, num_bytes = [], 0
    if block:
        yield block


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
    trained: TrainedModel,
    sources: Iterable[Source | str],
    options: RowOptions,
    clock: CpuClock,
    folder: str = "",
) -> Iterator[Spectrogram]:
    """Decode files and compute their spectrograms, one after the other, for a model.

    Args:
        trained: only its features and resampler are used, not its networks.
        sources: audio files, or segments of such.
        options: what rows are made of.
        clock: counts the CPU time.
        folder: what relative names are relative to; default: this process's working directory.
    """
    for source in map(Source.of, sources):
        try:
            with local_copy(source.file, folder) as path:
                for segment, speaker in source.parts():
                    place = {"file": printable(source.file), "speaker": speaker}
                    yield from _read_segment(trained, place, path, segment, options, clock)
        except AudioError as error:  # it could not be fetched
            yield {"file": printable(source.file), "error": error.reason}, None


def _read_segment(
    trained: TrainedModel,
    row: dict[str, Any],
    path: str,
    segment: Segment,
    options: RowOptions,
    clock: CpuClock,
) -> Iterator[Spectrogram]:
    try:
        with clock.phase("decode"):
            recording = open_recording(trained, path, segment)
        parts = [segment]
        if options.segments is not None:
            with clock.phase("decode"):
                parts = [
                    Segment(segment.start_s + start_s, segment.start_s + end_s)
                    for start_s, end_s in SPEECH_FINDERS[options.segments](recording)
                ]
        for part in parts:
            if part != segment:
                with clock.phase("decode"):
                    recording = open_recording(trained, path, part)
            yield from _spectrograms(trained, recording, part.start_s, row, options, clock)
        if not parts:
            yield row | _times(segment.start_s, segment.end_s) | {"error": "contains no speech"}, None
    except AudioError as error:
        times = {} if segment.is_whole else _times(segment.start_s, segment.end_s)
        yield row | times | {"error": error.reason}, None


def _spectrograms(
    trained: TrainedModel,
    recording: Recording,
    start_s: float,
    row: dict[str, Any],
    options: RowOptions,
    clock: CpuClock,
) -> Iterator[Spectrogram]:
    """Spectrograms of a recording that begins at ``start_s`` in its file."""
    rate = trained.front_end.sample_rate
    row = row | {
        "warning": "; ".join((*recording.warnings, *recording.levels.warnings(trained.front_end.remove_dc)))
        or None
    }
    if options.window_s is None:
        with clock.phase("mel"):
            frames = frames_of(trained, recording)
        yield row | _times(start_s, start_s + recording.levels.num_samples / rate), frames
        return
    windows = windows_of(recording.blocks(), *in_samples(trained, options.window_s, options.hop_s))
    while True:
        with clock.phase("decode"):
            place, samples = next(windows, (0, None))
        if samples is None:
            return
        times = _times(start_s + place / rate, start_s + (place + len(samples)) / rate)
        problem, content = window_content(trained, samples, clock)
        yield row | times | problem, content


def window_content(
    trained: TrainedModel, samples: Float32[np.ndarray, " sample"], clock: CpuClock
) -> tuple[dict[str, Any], Float[Tensor, "frame mel"] | None]:
    """The frames of a window, or the error of one without sound. It is normalised by its own peak."""
    if not samples.any():
        return {"error": SILENT}, None
    with clock.phase("mel"):
        return {}, trained.front_end.frames(samples)


def _times(start_s: float, end_s: float | None) -> dict[str, float | None]:
    return {"start": round(start_s, 3), "end": None if end_s is None else round(end_s, 3)}


_FRAMES_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("speaker", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("warning", pa.string()),
        ("error", pa.string()),
        ("frames", pa.large_binary()),
    ]
)


@dataclass(frozen=True)
class Reader:
    """From file names to packed spectrograms; contains no network, so it is cheap to send to any process.

    Attributes:
        trained: a model without its networks.
        options: what rows are made of.
        folder: what relative names are relative to.
    """

    trained: TrainedModel
    options: RowOptions
    folder: str

    def __call__(self, files: Sequence[Source | str]) -> bytes:
        """Pack spectrograms and the CPU time that they took."""
        clock = CpuClock()
        spectrograms = list(read_spectrograms(self.trained, files, self.options, clock, self.folder))
        return pack_spectrograms(spectrograms, clock)


class Scorer:
    """From packed spectrograms to packed rows.

    Args:
        trained: the model.
        device: where its networks run.
        options: what rows are made of.
    """

    def __init__(self, trained: TrainedModel, device: str, options: RowOptions) -> None:
        self._predictor = Predictor(trained, torch.device(device))
        self._options = options

    def __call__(self, spectrograms: bytes) -> bytes:
        """Pack rows, and the CPU time that they and their spectrograms took."""
        found, clock = unpack_spectrograms(spectrograms, self._predictor.trained.front_end.width)
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
