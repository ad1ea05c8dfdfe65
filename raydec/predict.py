"""``python -m raydec.predict MODEL_DIR PATH ... --out FILE``: emotional attributes of recordings."""

from __future__ import annotations

import functools
import math
import os
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydec.console.arguments import Parser
from raydec.console.terminal import note, progress_bar, run_entry_point, waiting
from raydec.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from raydec.inference.prediction import Predictor
    from raydec.inference.prediction_files import CpuClock, RowOptions
    from raydec.inference.prediction_output import PredictionOutput

# What a crash can cost, and what travels between processes: some dozen files, or one long one.
_FILES_PER_PART = 32
_BYTES_PER_PART = 64 << 20
# One core predicts this many in about the time a local Ray takes to start.
_FEW_FILES = 500


def main(arguments: Sequence[str]) -> None:
    """Predict every file that has no row yet and write the table."""
    options = _parse(arguments)
    # torch takes seconds to import: not before the arguments are known to be good.
    from raydec.inference.audio_inputs import find_inputs
    from raydec.inference.prediction import load, model_fingerprint
    from raydec.inference.prediction_files import result_schema
    from raydec.inference.prediction_output import PredictionOutput
    from raydec.model.hub import local_model

    files = find_inputs(options.paths)
    with waiting("loading the model"):
        options.model = local_model(options.model)
        predictor = load(options.model)
    row_options = _row_options(options, predictor)
    made_with = {"model": model_fingerprint(options.model), "windows_s": options.windows}
    made_with |= _extra_columns(row_options)
    schema = result_schema(predictor, row_options)
    output = PredictionOutput(options.out, schema, made_with, options.restart)
    _predict_missing(predictor, output, files, row_options, options)
    counts = output.finish(files)
    failures = f", {counts.failed} without a prediction (column 'error' says why)" if counts.failed else ""
    note(f"wrote {options.out}: {counts.rows} rows{failures}")


def _row_options(options: Namespace, predictor: Predictor) -> RowOptions:
    from raydec.inference.prediction_files import RowOptions

    if options.distances and predictor.num_centroids is None:
        raise UserError(f"--distances: {options.model} has no centroids; only models with clusters have them")
    clip = None
    if options.clip or options.label_range:
        clip = tuple(options.label_range) if options.label_range else predictor.saved.label_range
        if clip is None:
            raise UserError(
                f"--clip: {options.model} does not say its labels' range; add --label-range LOW HIGH"
            )
    return RowOptions(options.windows, options.embeddings, options.distances, clip)


def _extra_columns(options: RowOptions) -> dict[str, Any]:
    """What else decides the rows; nothing by default, as in files that older versions began."""
    chosen: dict[str, Any] = {"embeddings": options.embeddings, "distances": options.distances}
    chosen["clip"] = options.clip and list(options.clip)
    return {name: value for name, value in chosen.items() if value}


def _predict_missing(
    predictor: Predictor,
    output: PredictionOutput,
    files: Sequence[str],
    row_options: RowOptions,
    options: Namespace,
) -> None:
    from raydec.corpus.audio_files import printable

    done = output.done()
    missing = [file for file in files if printable(file) not in done]
    if len(missing) < len(files):
        note(f"{len(files) - len(missing)} of {len(files)} files have their rows already")
    if not missing:
        return
    follower = _Follower(output, len(missing))
    run = _run_here if _workers(options, len(missing)) == 0 else _run_on_ray
    with follower.bar:
        run(predictor, list(_parts(missing)), row_options, options, follower.add)
    note(follower.summary(), verbose=True)


def _workers(options: Namespace, num_files: int) -> int | None:
    if options.workers is not None or options.address or os.environ.get("RAY_ADDRESS"):
        return options.workers
    return 0 if num_files < _FEW_FILES or (os.cpu_count() or 1) == 1 else None


Add = Callable[["pa.Table", "CpuClock"], None]


def _run_here(
    predictor: Predictor,
    parts: Sequence[Sequence[str]],
    row_options: RowOptions,
    options: Namespace,
    add: Add,
) -> None:
    from raydec.inference.prediction_files import CpuClock, predict_files
    from raydec.learning.host import keep_freed_memory

    keep_freed_memory()
    for part in parts:
        clock = CpuClock()
        add(predict_files(predictor, part, row_options, clock), clock)


def _run_on_ray(
    predictor: Predictor,
    parts: Sequence[Sequence[str]],
    row_options: RowOptions,
    options: Namespace,
    add: Add,
) -> None:
    from raydec.inference.prediction_files import Reader, Scorer, unpack_table
    from raydec.ray_runtime.predict import predict_parts

    predict_parts(
        parts,
        Reader(replace(predictor.saved, networks=[], centroids=None), row_options.window_s, os.getcwd()),
        functools.partial(Scorer, predictor.saved, options=row_options),
        num_workers=options.workers,
        address=options.address,
        on_done=lambda content: add(*unpack_table(content)),
    )


def _parts(files: Sequence[str]) -> Iterator[list[str]]:
    """Files in the order given, a part at a time."""
    part: list[str] = []
    num_bytes = 0
    for file in files:
        size = os.path.getsize(file) if os.path.exists(file) else 0
        if part and (len(part) == _FILES_PER_PART or num_bytes + size > _BYTES_PER_PART):
            yield part
            part, num_bytes = [], 0
        part.append(file)
        num_bytes += size
    yield part


class _Follower:
    """Keeps rows as they come, and counts files, seconds of speech and CPU time."""

    def __init__(self, output: PredictionOutput, num_files: int) -> None:
        from raydec.inference.prediction_files import CpuClock

        self._output = output
        self._clock = CpuClock()
        self._speech_s = 0.0
        self._begun = time.monotonic()
        self.bar = progress_bar("files")
        self._task = self.bar.add_task("predict", total=num_files)

    def add(self, table: pa.Table, clock: CpuClock) -> None:
        """Keep the rows of some files."""
        import pyarrow.compute as pc

        self._output.add(table)
        self._speech_s += pc.sum(pc.subtract(table["end"], table["start"])).as_py() or 0.0
        for phase, seconds in clock.seconds.items():
            self._clock.seconds[phase] += seconds
        self.bar.advance(self._task, len(pc.unique(table["file"])))

    def summary(self) -> str:
        """Speed, and where the CPU time went."""
        wall_s = time.monotonic() - self._begun
        total = sum(self._clock.seconds.values()) or 1.0
        split = ", ".join(f"{phase} {seconds / total:.0%}" for phase, seconds in self._clock.seconds.items())
        speech_h = self._speech_s / 3600
        return (
            f"{speech_h:.2f} h of speech in {wall_s:.1f} s: {speech_h / (wall_s / 60):.2f} h per minute; "
            f"CPU time {total:.1f} s: {split}"
        )


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = Parser(
        prog="python -m raydec.predict",
        description="Predict emotional attributes of recordings. Run the same command again after an "
        "interruption and it goes on where it stopped; files added meanwhile are predicted too.",
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="a model directory, or hf:owner/name")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="audio files, folders (searched recursively), or lists of files: .txt with a path per line, "
        ".csv or .parquet with a column 'file' or 'path', relative to the list's folder; also URIs "
        "such as s3://bucket/folder",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .csv or .parquet file")
    parser.add_argument(
        "--windows",
        type=_seconds,
        metavar="SECONDS",
        help="one row per window of this length instead of one per file; a rest shorter than half a window "
        "joins the last one",
    )
    _add_columns(parser)
    parser.add_argument(
        "--workers",
        type=_natural,
        metavar="N",
        help="processes that Ray spreads the files over; 0: this process alone, without Ray; default: one "
        f"per CPU, and 0 for fewer than {_FEW_FILES} files",
    )
    parser.add_argument("--address", help="Ray cluster to join; default: RAY_ADDRESS, else this machine")
    parser.add_argument("--restart", action="store_true", help="forget what FILE holds and begin anew")
    options = parser.parse_args(arguments)
    for name in ("embeddings", "distances"):
        if getattr(options, name) and options.out.suffix.lower() != ".parquet":
            raise UserError(
                f"--{name} needs columns of vectors; let --out end in .parquet, not {options.out.name}"
            )
    if options.label_range and not options.label_range[0] < options.label_range[1]:
        raise UserError("--label-range {:g} {:g} is empty; give low, then high".format(*options.label_range))
    return options


def _add_columns(parser: Parser) -> None:
    parser.add_argument(
        "--embeddings",
        action="store_true",
        help="a column with what K-means sees, the mean over a row's chunks (.parquet only)",
    )
    parser.add_argument(
        "--distances",
        action="store_true",
        help="a column with the distances to all centroids, the mean over a row's chunks (.parquet only)",
    )
    parser.add_argument(
        "--clip", action="store_true", help="limit scores to the range of the training labels"
    )
    parser.add_argument(
        "--label-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="limit scores to this range; for models that do not say theirs",
    )


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not (math.isfinite(seconds) and seconds >= 0.1):
        raise ArgumentTypeError(f"{text} is out of range; a window lasts at least 0.1 s")
    return seconds


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
