"""The command line of ``raydec.predict``, its standard input, and its progress."""

from __future__ import annotations

import math
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from raydec.console.arguments import Parser, natural
from raydec.console.terminal import note, progress_bar
from raydec.errors import UserError
from raydec.ray_runtime.predict import FEW_FILES

STREAM = "-"
"""The path that means standard input."""
_STREAM_WINDOW_S = 4.0

if TYPE_CHECKING:
    import pyarrow as pa

    from raydec.inference.prediction import Predictor
    from raydec.inference.rows import CpuClock


def parse_predict(arguments: Sequence[str]) -> Namespace:
    """Read the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(
        prog="python -m raydec.predict",
        description="Predict emotional attributes of recordings. Run the same command again after an "
        "interruption and it continues where it stopped; files added meanwhile are predicted too.",
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="a model directory, or hf:owner/name")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="'-' for a WAV stream on standard input, or audio files, folders (searched recursively), or "
        "lists of files: .txt with a path per line, Kaldi's wav.scp, or a table (.csv, .parquet) with a "
        "column 'file' or 'path', and optionally 'start' and 'end'; paths are relative to the list's "
        "folder; also URIs such as s3://bucket/folder",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="a .csv or .parquet file; default, for standard input only: standard output",
    )
    parser.add_argument(
        "--windows",
        type=_seconds,
        metavar="SECONDS",
        help="one row per window of this length instead of one per file",
    )
    parser.add_argument(
        "--hop",
        type=_seconds,
        metavar="SECONDS",
        help="time between the starts of two windows; default: the length of a window; a remainder shorter "
        "than half a hop is added to the last window",
    )
    parser.add_argument(
        "--segments",
        choices=("energy", "vad"),
        help="one row per stretch of speech between pauses, or per window of it; speech is found by its "
        "level, or by a voice activity detector (extra vad)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="an .html file for a timeline of each recording; needs --windows or --segments",
    )
    _add_columns(parser)
    parser.add_argument(
        "--workers",
        type=natural,
        metavar="N",
        help="number of Ray processes; 0: this process, without Ray; default: one per CPU, or 0 for fewer "
        f"than {FEW_FILES} files",
    )
    parser.add_argument(
        "--encoder",
        metavar="DIR",
        help="folder of the model's pretrained encoder; default: in MODEL_DIR, or the Hub",
    )
    parser.add_argument(
        "--speaker-means",
        metavar="STORE_DIR",
        help="a feature store with speech of the speakers in a list's column 'speaker', for a model with "
        "features.speaker_normalization=mean",
    )
    parser.add_argument("--address", help="Ray cluster to join; default: RAY_ADDRESS, else this machine")
    parser.add_argument("--restart", action="store_true", help="discard the rows of FILE and start over")
    options = parser.parse_args(arguments)
    _check(options)
    return options


def _add_columns(parser: Parser) -> None:
    parser.add_argument(
        "--embeddings",
        action="store_true",
        help="add a column with the embedding, the mean over a row's chunks (.parquet only)",
    )
    parser.add_argument(
        "--distances",
        action="store_true",
        help="add a column with the distances to all centroids, the mean over a row's chunks (.parquet only)",
    )
    parser.add_argument(
        "--clip", action="store_true", help="limit scores to the range of the training labels"
    )
    parser.add_argument(
        "--label-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="limit scores to this range; for models that do not record the range of their labels",
    )


def _check(options: Namespace) -> None:
    if STREAM in options.paths:
        _check_stream(options)
    elif options.out is None:
        raise UserError("the following arguments are required: --out FILE.csv or FILE.parquet")
    for name in ("embeddings", "distances"):
        if getattr(options, name) and options.out.suffix.lower() != ".parquet":
            raise UserError(
                f"--{name} needs a .parquet file for its vectors; change --out {options.out.name}"
            )
    if options.hop is not None and options.windows is None:
        raise UserError(f"--hop {options.hop:g} needs a window length; add --windows SECONDS")
    if options.hop is not None and options.hop > options.windows:
        raise UserError(
            f"--hop {options.hop:g} is longer than --windows {options.windows:g}: speech in between would be "
            "left out; choose a shorter hop"
        )
    if options.label_range and not options.label_range[0] < options.label_range[1]:
        raise UserError("--label-range {:g} {:g} is empty; give low, then high".format(*options.label_range))


def _check_stream(options: Namespace) -> None:
    if len(options.paths) > 1:
        raise UserError(
            "- is standard input, which cannot be combined with other paths; give one or the other"
        )
    if options.plot is not None and options.out is None:
        raise UserError(f"--plot {options.plot} needs a file of rows; add --out FILE.csv")
    for name in ("segments", "embeddings", "distances", "speaker_means", "workers", "address"):
        if getattr(options, name):
            raise UserError(
                f"--{name.replace('_', '-')} needs whole files; write standard input to a file first"
            )
    if options.windows is None:
        options.windows = _STREAM_WINDOW_S


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not (math.isfinite(seconds) and seconds >= 0.1):
        raise ArgumentTypeError(f"{text} is out of range; give at least 0.1 s")
    return seconds


def predict_standard_input(options: Namespace) -> None:
    """Print or write a row for each window of the WAV stream on standard input.

    Raises:
        UserError: standard input is not a WAV stream, or the rows cannot be written.
    """
    from raydec.inference.predicted_table import PredictedTable
    from raydec.inference.prediction import load
    from raydec.inference.rows import result_schema

    if options.plot is None:
        _predict_stream(options, load(options.model, encoder=options.encoder))
        return
    from raydec.pages.timeline import check_timeline, write_timeline

    page = check_timeline(options.plot, options.windows, None)
    predictor = load(options.model, encoder=options.encoder)
    schema, label_range = result_schema(predictor), predictor.trained.label_range
    table = PredictedTable(options.out, schema, predictor.outputs, label_range)
    try:
        _predict_stream(options, predictor)
    except KeyboardInterrupt:
        # Ctrl-C is how an endless stream is stopped, and it cannot be resumed, so plot its rows now.
        if options.out.exists() and options.out.stat().st_size:
            write_timeline(table, page)
        raise
    write_timeline(table, page)
    note(f"wrote {options.plot}: a timeline")


def _predict_stream(options: Namespace, predictor: Predictor) -> None:
    from raydec.files.atomic import full_disk_explained
    from raydec.inference.pipe import open_new, predict_pipe
    from raydec.inference.recordings import score_limits

    limits = score_limits(predictor, options.model, options.clip, options.label_range)
    rows: AbstractContextManager[TextIO] = nullcontext(sys.stdout)
    explained: AbstractContextManager[None] = nullcontext()
    if options.out is not None:
        rows = open_new(options.out, restart=options.restart)
        kept = f"{options.out} has the rows so far; add --restart to replace it"
        explained = full_disk_explained(options.out.absolute().parent, kept)
    with explained, rows as out:
        num_rows = predict_pipe(
            predictor, sys.stdin.buffer, out, window_s=options.windows, hop_s=options.hop, clip=limits
        )
    if options.out is not None:
        note(f"wrote {options.out}: {num_rows} rows")


class PredictionProgress:
    """Implements :class:`raydec.inference.recordings.PredictionEvents` on the terminal; a context manager."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._speech_s = 0.0
        self._begun = time.monotonic()
        self._bar = progress_bar("files")
        self._task = self._bar.add_task("predict", total=None)

    def __enter__(self) -> PredictionProgress:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._bar.stop()

    def found(self, num_files: int, num_done: int, num_failed: int) -> None:
        """Print how much of the work is already done."""
        if num_done:
            note(f"{num_done} of {num_files} files already have rows")
        if num_failed:
            note(f"{num_failed} of {num_files} files failed before and are retried")
        self._bar.update(self._task, total=num_files - num_done)

    def predicted(self, table: pa.Table, clock: CpuClock) -> None:
        """Count files, seconds of speech and CPU time."""
        import pyarrow.compute as pc

        self._speech_s += pc.sum(pc.subtract(table["end"], table["start"])).as_py() or 0.0
        for phase, seconds in clock.seconds.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
        self._bar.advance(self._task, len(pc.unique(table["file"])))

    def summary(self) -> str:
        """Speed, and the CPU time by phase."""
        wall_s = time.monotonic() - self._begun
        total = sum(self._seconds.values()) or 1.0
        split = ", ".join(f"{phase} {seconds / total:.0%}" for phase, seconds in self._seconds.items())
        speech_h = self._speech_s / 3600
        return (
            f"{speech_h:.2f} h of speech in {wall_s:.1f} s: {speech_h / (wall_s / 60):.2f} h per minute; "
            f"CPU time {total:.1f} s: {split}"
        )
