"""The command line and the output of ``raydec.evaluate``."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from raydec.console.arguments import Parser, natural
from raydec.console.terminal import out
from raydec.errors import UserError

if TYPE_CHECKING:
    from raydec.evaluation.result import Evaluation

_WIDEST_TABLE = 160


def parse_evaluate(arguments: Sequence[str]) -> Namespace:
    """Read the command line; ``model`` is a model directory or a table of predictions.

    Raises:
        UserError: an argument is wrong.
    """
    options = _parser().parse_args(arguments)
    wanted = ["MODEL_DIR", "STORE_DIR"] if options.predictions is None else ["STORE_DIR"]
    places = options.places
    if len(places) < len(wanted):
        raise UserError(f"the following arguments are required: {', '.join(wanted[len(places) :])}")
    if len(places) > len(wanted):
        hint = "; name a model to compare with --against" if options.predictions else ""
        raise UserError(f"unexpected argument {str(places[len(wanted)])!r}{hint}")
    options.model = places[0] if options.predictions is None else options.predictions
    if options.predictions is not None and not options.predictions.is_file():
        raise UserError(f"--predictions {options.predictions}: there is no such file")
    options.store = places[-1]
    return options


def _parser() -> Parser:
    parser = Parser(
        prog="python -m raydec.evaluate",
        description="Score a model on labeled splits of a feature store: CCC per attribute, or macro-F1 of "
        "classes, with a 95% interval over speakers, how clusters relate to emotion, and scores by speaker "
        "and duration.",
    )
    parser.add_argument(
        "places",
        type=Path,
        nargs="*",
        metavar="MODEL_DIR STORE_DIR",
        help="a model directory, or hf:owner/name, and a feature store; with --predictions only the store",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="score the predictions of any program instead of a model's: a table with a column 'file' and "
        "one per attribute",
    )
    parser.add_argument(
        "--split",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="splits to score, ignoring case; default: all named test*, else validation",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="write all results to this file, and to a Markdown file next to it",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="MODEL_DIR|FILE",
        help="another model or table of predictions: differences of CCC on the same utterances, with a "
        "paired test",
    )
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="seed of resamples and permutations (default: 0)"
    )
    parser.add_argument(
        "--resamples",
        type=_resamples,
        default=2000,
        metavar="N",
        help="bootstrap samples and permutations (default: 2000)",
    )
    return parser


def _resamples(text: str) -> int:
    number = natural(text)
    if not 100 <= number <= 1_000_000:
        raise ArgumentTypeError(f"{text} is out of range; must be from 100 to 1000000")
    return number


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the tables, and notes on how to read them."""
    from raydec.evaluation.class_output import class_rows
    from raydec.evaluation.output import comparison_rows, result_rows

    subject = evaluation.model.run or evaluation.model.path
    if any(split.attributes for split in evaluation.splits):
        print_table(f"{subject} on {evaluation.corpus}", *result_rows(evaluation))
    if any(split.classes for split in evaluation.splits):
        print_table(f"classes of {subject} on {evaluation.corpus}", *class_rows(evaluation))
    if evaluation.against is not None:
        print_table(f"against {evaluation.against.path}", *comparison_rows(evaluation))
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


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in its full width, also in a pipe."""
    table = Table(title=Text(title), title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    # In a pipe, rich assumes 80 columns and would truncate numbers.
    table.width = out.measure(table, options=out.options.update(width=_WIDEST_TABLE)).maximum
    out.print(table)
