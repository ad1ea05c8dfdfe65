"""What a person gives to ``raydec.predict``, and sees of it."""

from __future__ import annotations

import math
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from raydec.console.arguments import Parser, natural
from raydec.console.terminal import note, progress_bar
from raydec.errors import UserError
from raydec.ray_runtime.predict import FEW_FILES

if TYPE_CHECKING:
    import pyarrow as pa

    from raydec.inference.prediction_files import CpuClock


def parse_predict(arguments: Sequence[str]) -> Namespace:
    """Read the command line.

    Raises:
        UserError: naming what is wrong.
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
        type=natural,
        metavar="N",
        help="processes that Ray spreads the files over; 0: this process alone, without Ray; default: one "
        f"per CPU, and 0 for fewer than {FEW_FILES} files",
    )
    parser.add_argument(
        "--encoder",
        metavar="DIR",
        help="where the pretrained encoder of such a model is; default: in MODEL_DIR, or on the Hub",
    )
    parser.add_argument("--address", help="Ray cluster to join; default: RAY_ADDRESS, else this machine")
    parser.add_argument("--restart", action="store_true", help="forget what FILE holds and begin anew")
    options = parser.parse_args(arguments)
    _check(options)
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


def _check(options: Namespace) -> None:
    for name in ("embeddings", "distances"):
        if getattr(options, name) and options.out.suffix.lower() != ".parquet":
            raise UserError(
                f"--{name} needs columns of vectors; let --out end in .parquet, not {options.out.name}"
            )
    if options.label_range and not options.label_range[0] < options.label_range[1]:
        raise UserError("--label-range {:g} {:g} is empty; give low, then high".format(*options.label_range))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not (math.isfinite(seconds) and seconds >= 0.1):
        raise ArgumentTypeError(f"{text} is out of range; a window lasts at least 0.1 s")
    return seconds


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

    def found(self, num_files: int, num_done: int) -> None:
        """Say how much of the work is done already."""
        if num_done:
            note(f"{num_done} of {num_files} files have their rows already")
        self._bar.update(self._task, total=num_files - num_done)

    def predicted(self, table: pa.Table, clock: CpuClock) -> None:
        """Count files, seconds of speech and CPU time."""
        import pyarrow.compute as pc

        self._speech_s += pc.sum(pc.subtract(table["end"], table["start"])).as_py() or 0.0
        for phase, seconds in clock.seconds.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
        self._bar.advance(self._task, len(pc.unique(table["file"])))

    def summary(self) -> str:
        """Speed, and where the CPU time went."""
        wall_s = time.monotonic() - self._begun
        total = sum(self._seconds.values()) or 1.0
        split = ", ".join(f"{phase} {seconds / total:.0%}" for phase, seconds in self._seconds.items())
        speech_h = self._speech_s / 3600
        return (
            f"{speech_h:.2f} h of speech in {wall_s:.1f} s: {speech_h / (wall_s / 60):.2f} h per minute; "
            f"CPU time {total:.1f} s: {split}"
        )
