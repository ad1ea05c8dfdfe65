"""``python -m raydec.evaluate MODEL_DIR STORE_DIR``: how good a model is on labeled splits."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raydec.console.arguments import Parser
from raydec.console.terminal import note, out, progress_bar, run_entry_point, waiting

if TYPE_CHECKING:
    from raydec.evaluation.result import Evaluation

_WIDEST_TABLE = 160


def main(arguments: Sequence[str]) -> None:
    """Evaluate, print the tables and write the files that were asked for."""
    options = _parser().parse_args(arguments)
    # torch takes seconds to import: not before the arguments are known to be good.
    from raydec.evaluation.output import check_output, write_evaluation
    from raydec.evaluation.scoring import evaluate
    from raydec.learning.host import keep_freed_memory
    from raydec.model.hub import local_model

    if options.out is not None:
        check_output(options.out)
    with waiting("fetching models"):
        model = local_model(options.model)
        against = None if options.against is None else local_model(options.against)
    keep_freed_memory()
    with progress_bar("utterances") as bar:
        task = bar.add_task("predict", total=None)
        evaluation = evaluate(
            model,
            options.store,
            options.split,
            against=against,
            seed=options.seed,
            num_resamples=options.resamples,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _print(evaluation)
    if options.out is not None:
        sibling = write_evaluation(evaluation, options.out)
        note(f"wrote {options.out} and {sibling}")


def _print(evaluation: Evaluation) -> None:
    from raydec.evaluation.output import comparison_rows, result_rows

    subject = evaluation.model.run or evaluation.model.path
    _print_table(f"{subject} on {evaluation.corpus}", *result_rows(evaluation))
    if evaluation.against is not None:
        _print_table(f"against {evaluation.against.path}", *comparison_rows(evaluation))
    for split in evaluation.splits:
        if split.emotion is not None:
            out.print(
                f"{split.split}: emotion class and cluster share "
                f"{split.emotion.mutual_information_nats:.4f} nats "
                f"(normalised {split.emotion.normalized:.4f}, {split.emotion.num_utterances} utterances)",
                markup=False,
            )
        for remark in split.notes:
            out.print(f"note on {split.split}: {remark}", markup=False)


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    # As wide as it needs: in a pipe rich takes 80 columns for granted and would cut numbers off.
    table.width = out.measure(table, options=out.options.update(width=_WIDEST_TABLE)).maximum
    out.print(table)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m raydec.evaluate",
        description="Score a model on labeled splits of a feature store: CCC per attribute with a 95% "
        "interval over speakers, what the clusters say about emotion, and scores by speaker and duration.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="a model directory, or hf:owner/name")
    parser.add_argument("store", type=Path, metavar="STORE_DIR", help="a feature store")
    parser.add_argument(
        "--split",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="splits to score; case does not matter; default: all named test*, else validation",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="write everything there, and as Markdown beside it"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="MODEL_DIR",
        help="another model: differences of CCC on the same utterances, with a paired test",
    )
    parser.add_argument(
        "--seed", type=_natural, default=0, metavar="N", help="of resamples and permutations (default: 0)"
    )
    parser.add_argument(
        "--resamples",
        type=_resamples,
        default=2000,
        metavar="N",
        help="bootstrap samples and permutations (default: 2000)",
    )
    return parser


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _resamples(text: str) -> int:
    number = _natural(text)
    if not 100 <= number <= 1_000_000:
        raise ArgumentTypeError(f"{text} is out of range; from 100 to 1000000 make sense")
    return number


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
