"""``python -m raydec.report RUN_DIR``: write the HTML report of a finished run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from raydec.api import report
from raydec.console.arguments import Parser
from raydec.console.terminal import note, progress_bar, run_entry_point


def main(arguments: Sequence[str]) -> None:
    """Analyse the run, write the file and print its path."""
    options = _parser().parse_args(arguments)
    with progress_bar("utterances") as progress:
        task = progress.add_task("predict", total=None)
        path = report(
            options.run,
            out=options.out,
            split=options.split,
            store=options.store,
            audio=options.audio,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    note(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m raydec.report",
        description="Write a self-contained HTML file about a finished run: training curves, scores with "
        "intervals, the clusters and their relation to emotion, the settings. It works offline.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the directory of a finished run")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write; default: report.html in the run directory"
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="the split to show in detail; default: the first test split, or validation",
    )
    parser.add_argument(
        "--store", type=Path, metavar="STORE_DIR", help="the run's feature store, if it was moved"
    )
    parser.add_argument(
        "--audio",
        action="store_true",
        help="embed a second of each utterance nearest to a centroid; the file then contains speech",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
