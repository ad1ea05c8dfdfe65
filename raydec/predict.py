"""``python -m raydec.predict MODEL_DIR PATH ... --out FILE``: emotional attributes of recordings."""

from __future__ import annotations

import math
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raydec.arguments import Parser
from raydec.console import out, progress_bar, run_entry_point

if TYPE_CHECKING:
    from raydec.reporting.prediction import Predictor
    from raydec.reporting.prediction_output import PredictionOutput

_FILES_PER_PART = 32


def main(arguments: Sequence[str]) -> None:
    """Predict every file that has no row yet and write the table."""
    options = _parser().parse_args(arguments)
    # torch takes seconds to import: not before the arguments are known to be good.
    from raydec.reporting.audio_inputs import find_inputs
    from raydec.reporting.prediction import load, model_fingerprint, result_schema
    from raydec.reporting.prediction_output import PredictionOutput

    files = find_inputs(options.paths)
    predictor = load(options.model)
    made_with = {"model": model_fingerprint(options.model), "windows_s": options.windows}
    output = PredictionOutput(options.out, result_schema(predictor), made_with, options.restart)
    _predict_missing(predictor, output, files, options.windows)
    table = output.finish(files)
    num_failed = table.num_rows - table["error"].null_count
    failures = f", {num_failed} without a prediction (column 'error' says why)" if num_failed else ""
    out.print(f"wrote {options.out}: {table.num_rows} rows{failures}", markup=False)


def _predict_missing(
    predictor: Predictor, output: PredictionOutput, files: Sequence[str], window_s: float | None
) -> None:
    from raydec.corpus.audio_files import printable
    from raydec.reporting.prediction import predict_files

    done = output.done()
    missing = [file for file in files if printable(file) not in done]
    if len(missing) < len(files):
        out.print(f"{len(files) - len(missing)} of {len(files)} files have their rows already", markup=False)
    with progress_bar("files") as progress:
        task = progress.add_task("predict", total=len(missing))
        for start in range(0, len(missing), _FILES_PER_PART):
            part = missing[start : start + _FILES_PER_PART]
            output.add(predict_files(predictor, part, window_s))
            progress.advance(task, len(part))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m raydec.predict",
        description="Predict emotional attributes of recordings. Run the same command again after an "
        "interruption and it goes on where it stopped; files added meanwhile are predicted too.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="a model directory")
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="audio files, folders (searched recursively), or lists of files: .txt with a path per line, "
        ".csv or .parquet with a column 'file' or 'path', relative to the list's folder",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .csv or .parquet file")
    parser.add_argument(
        "--windows",
        type=_seconds,
        metavar="SECONDS",
        help="one row per window of this length instead of one per file; a rest shorter than half a window "
        "joins the last one",
    )
    parser.add_argument("--restart", action="store_true", help="forget what FILE holds and begin anew")
    return parser


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
