"""Predict recordings into a file, resumably: what ``raydec.predict`` does once its arguments are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from raydec.corpus.audio_files import printable
from raydec.errors import UserError
from raydec.inference.audio_inputs import find_inputs
from raydec.inference.prediction import Predictor, load, model_fingerprint
from raydec.inference.prediction_files import CpuClock, RowOptions, result_schema
from raydec.inference.prediction_output import PredictionCounts, PredictionOutput
from raydec.inference.work import Runner, divide, run_here
from raydec.model.hub import local_model


@runtime_checkable
class PredictionEvents(Protocol):
    """Is told how far a prediction of many files is."""

    def found(self, num_files: int, num_done: int) -> None:
        """So many files were asked for, of which some have their rows from an earlier attempt."""

    def predicted(self, table: pa.Table, clock: CpuClock) -> None:
        """The rows of some files are kept; ``clock`` has the CPU time that they took."""


class _Unheard:
    def found(self, num_files: int, num_done: int) -> None:
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
    embeddings: bool = False,
    distances: bool = False,
    clip: bool = False,
    label_range: tuple[float, float] | None = None,
    restart: bool = False,
    encoder: str | Path | None = None,
    run: Runner = run_here,
    events: PredictionEvents = _UNHEARD,
) -> PredictionCounts:
    """Predict every recording that has no row yet, and write the table.

    Interrupted, the same call continues where the last one stopped.

    Args:
        model: a model directory, or ``hf:owner/name``.
        paths: audio files, folders, or lists of files; see :func:`raydec.inference.audio_inputs.find_inputs`.
        out: a ``.csv`` or ``.parquet`` file.
        window_s: one row per window of this many seconds instead of one per file.
        embeddings: add the column ``embedding``.
        distances: add the column ``cluster_distances``.
        clip: limit scores to the range of the training labels.
        label_range: limit scores to this range.
        restart: forget what ``out`` holds.
        encoder: folder of the pretrained encoder that the model names; see
            :func:`raydec.inference.prediction.load`.
        run: where the work is done; default: this process.
        events: is told how far it is.

    Raises:
        UserError: a path or the model cannot be used, or ``out`` was made with something else.
    """
    files = find_inputs(paths)
    place = local_model(model)
    predictor = load(place, encoder=encoder)
    label_range = label_range or (_label_range(predictor, model) if clip else None)
    options = RowOptions(window_s, embeddings, distances, label_range)
    if distances and predictor.num_centroids is None:
        raise UserError(f"--distances: {model} has no centroids; only models with clusters have them")
    made_with = {"model": model_fingerprint(place), "windows_s": window_s, **_extra_columns(options)}
    output = PredictionOutput(Path(out), result_schema(predictor, options), made_with, restart)
    done = output.done()
    missing = [file for file in files if printable(file) not in done]
    events.found(len(files), len(files) - len(missing))

    def add(table: pa.Table, clock: CpuClock) -> None:
        output.add(table)
        events.predicted(table, clock)

    if missing:
        run(predictor, list(divide(missing)), options, add)
    return output.finish(files)


def _label_range(predictor: Predictor, model: str | Path) -> tuple[float, float]:
    if predictor.saved.label_range is None:
        raise UserError(f"--clip: {model} does not say its labels' range; add --label-range LOW HIGH")
    return predictor.saved.label_range


def _extra_columns(options: RowOptions) -> dict[str, Any]:
    """What else decides the rows; nothing by default, as in files that older versions began."""
    chosen: dict[str, Any] = {"embeddings": options.embeddings, "distances": options.distances}
    chosen["clip"] = options.clip and list(options.clip)
    return {name: value for name, value in chosen.items() if value}
