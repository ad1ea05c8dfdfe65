"""Predict recordings into a file, resumably: the work of ``raydec.predict``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from raydec.corpus.audio_files import printable
from raydec.errors import UserError
from raydec.features.speaker_means import speaker_means as means_of_speakers
from raydec.features.store import FeatureStore
from raydec.files.atomic import full_disk_explained
from raydec.inference.audio_inputs import Source, find_inputs
from raydec.inference.predicted_table import PredictedTable
from raydec.inference.prediction import SILENT, Predictor, load, model_fingerprint
from raydec.inference.prediction_output import DoneFile, PredictionCounts, PredictionOutput
from raydec.inference.rows import CpuClock, RowOptions, result_schema
from raydec.inference.voice_activity import require_detector
from raydec.inference.work import Runner, divide, run_here
from raydec.model.hub import local_model

logger = logging.getLogger(__name__)


@runtime_checkable
class PredictionEvents(Protocol):
    """Receives the progress of predicting many files."""

    def found(self, num_files: int, num_done: int, num_failed: int) -> None:
        """The inputs were found; some already have rows, some failed earlier and are retried."""

    def predicted(self, table: pa.Table, clock: CpuClock) -> None:
        """Rows of some files were written; ``clock`` has the CPU time that they took."""


class _Unheard:
    def found(self, num_files: int, num_done: int, num_failed: int) -> None:
        pass

    def predicted(self, table: pa.Table, clock: CpuClock) -> None:
        pass


_UNHEARD = _Unheard()


def predict_recordings(
    model: str | Path,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    window_s: float | None = None,
    hop_s: float | None = None,
    segments: str | None = None,
    embeddings: bool = False,
    distances: bool = False,
    clip: bool = False,
    label_range: tuple[float, float] | None = None,
    restart: bool = False,
    encoder: str | Path | None = None,
    speaker_means: str | Path | None = None,
    run: Runner = run_here,
    events: PredictionEvents = _UNHEARD,
    on_rows: Callable[[PredictedTable], object] = lambda table: None,
) -> PredictionCounts:
    """Predict every recording that has no row yet, or one with an error, and write the table.

    Interrupted, the same call continues where the last one stopped.

    Args:
        model: a model directory, or ``hf:owner/name``.
        paths: audio files, folders, or lists of files; see :func:`raydec.inference.audio_inputs.find_inputs`.
        out: a ``.csv`` or ``.parquet`` file.
        window_s: one row per window of this many seconds instead of one per file.
        hop_s: seconds from the start of one window to that of the next; default: ``window_s``.
        segments: one row per stretch of speech (or its windows), found by its level (``energy``) or by
            a voice activity detector (``vad``).
        embeddings: add the column ``embedding``.
        distances: add the column ``cluster_distances``.
        clip: limit scores to the range of the training labels.
        label_range: limit scores to this range.
        restart: discard the rows of ``out``.
        encoder: folder of the pretrained encoder that the model names; see
            :func:`raydec.inference.prediction.load`.
        speaker_means: a feature store that has the means of the speakers that lists name, for a model with
            ``features.speaker_normalization=mean``; the features of other speakers are not moved.
        run: does the work; default: in this process.
        events: receives the progress.
        on_rows: is called with the finished table, whether this call or an earlier one predicted its rows.

    Raises:
        UserError: a path or the model cannot be used, ``out`` was made with other settings, or the detector
            of ``segments`` is not installed.
    """
    if segments == "vad":
        require_detector()
    sources = find_inputs(paths)
    place = local_model(model)
    predictor = load(place, encoder=encoder)
    limits = score_limits(predictor, model, clip, label_range)
    offsets = None
    if speaker_means is not None:
        offsets = speaker_offsets(predictor, model, speaker_means, sources)
    elif predictor.trained.chunks.speaker_normalization == "mean":
        logger.warning(
            "%s normalises by speaker, and no speaker is known: scores are less accurate; --speaker-means "
            "STORE_DIR and a list with a column 'speaker' make them known",
            model,
        )
    options = RowOptions(window_s, hop_s, segments, embeddings, distances, limits, offsets)
    if distances and predictor.num_centroids is None:
        raise UserError(f"--distances: {model} has no centroids; only models with clusters have them")
    made_with = {"model": model_fingerprint(place), "windows_s": window_s, **_extra_columns(options)}
    if speaker_means is not None:
        made_with["speaker_means"] = str(Path(speaker_means).absolute())
    schema = result_schema(predictor, options)
    output = PredictionOutput(Path(out), schema, made_with, restart)
    missing = _missing(sources, output.done(harmless=SILENT), events, cut_later=segments is not None)

    def add(table: pa.Table, clock: CpuClock) -> None:
        output.add(table)
        events.predicted(table, clock)

    with full_disk_explained(output.path.absolute().parent, "rows of finished files are kept"):
        if missing:
            run(predictor, list(divide(missing)), options, add)
        counts = output.finish([printable(source.file) for source in sources])
    on_rows(PredictedTable(output.path, schema, predictor.outputs, predictor.trained.label_range))
    return counts


def _missing(
    sources: Sequence[Source], done: Mapping[str, DoneFile], events: PredictionEvents, *, cut_later: bool
) -> list[Source]:
    """Sources without rows, or with failed ones; ``cut_later``: rows do not begin where segments do."""
    missing, num_failed = [], 0
    for source in sources:
        found = done.get(printable(source.file))
        if found is None:
            missing.append(source)
        elif found.is_failed:
            missing.append(source)
            num_failed += 1
        elif not cut_later and any(
            round(segment.start_s, 3) not in found.starts for segment in source.segments
        ):
            missing.append(source)
    events.found(len(sources), len(sources) - len(missing), num_failed)
    return missing


def score_limits(
    predictor: Predictor, model: str | Path, clip: bool, label_range: tuple[float, float] | None
) -> tuple[float, float] | None:
    """The range that scores are limited to; None means that they are not.

    Args:
        predictor: the model.
        model: its name, for messages.
        clip: limit scores to the range of the training labels.
        label_range: limit scores to this range.

    Raises:
        UserError: the model does not record the range of its training labels.
    """
    if label_range is not None or not clip:
        return label_range
    if predictor.trained.label_range is None:
        raise UserError(
            f"--clip: {model} does not record the range of its labels; add --label-range LOW HIGH"
        )
    return predictor.trained.label_range


def speaker_offsets(
    predictor: Predictor, model: str | Path, place: str | Path, sources: Sequence[Source]
) -> dict[str, Float32[np.ndarray, " width"]]:
    """What is subtracted from the features of the speakers that lists name.

    Args:
        predictor: the model.
        model: its name, for messages.
        place: a feature store with other utterances of theirs, or the same ones.
        sources: what is predicted.

    Raises:
        UserError: the model does not normalise by speaker, the store has other features, or no speaker of a
            list is in the store.
    """
    trained = predictor.trained
    if trained.chunks.speaker_normalization == "none":
        raise UserError(
            f"--speaker-means {place}: {model} does not normalise by speaker; leave it out, or train with "
            "features.speaker_normalization=mean"
        )
    store = FeatureStore.open(place, trained.front_end)
    wanted = {speaker for source in sources for speaker in source.speakers if speaker is not None}
    known = store.utterances["speaker"].to_pylist()
    rows = np.array([row for row, speaker in enumerate(known) if speaker in wanted], np.int64)
    if not len(rows):
        found = f"that store has none of the {len(wanted)} speakers" if wanted else "no list names a speaker"
        raise UserError(
            f"--speaker-means {place}: {found}; predict a table with a column 'speaker', as in the store"
        )
    if missing := wanted.difference(known):
        logger.warning(
            "--speaker-means %s: without %s of %s speakers, such as %s; their scores are less accurate",
            place,
            len(missing),
            len(wanted),
            min(missing),
        )
    means = means_of_speakers(store, rows, trained.chunks.scale)
    return {speaker: (mean - trained.feature_mean).astype(np.float32) for speaker, mean in means.items()}


def _extra_columns(options: RowOptions) -> dict[str, Any]:
    """Other settings that determine the rows; empty by default, as in files of older versions."""
    chosen: dict[str, Any] = {"embeddings": options.embeddings, "distances": options.distances}
    chosen |= {"hop_s": options.hop_s, "segments": options.segments}
    chosen["clip"] = options.clip and list(options.clip)
    return {name: value for name, value in chosen.items() if value}
