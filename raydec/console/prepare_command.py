"""The command line of ``raydec.prepare``, and what it prints at the end."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raydec.console.arguments import Parser
from raydec.console.terminal import note, out
from raydec.errors import UserError

if TYPE_CHECKING:
    from raydec.features.store_writer import StoreSummary

_MAX_REASONS, _MAX_EXAMPLES = 15, 3
# Numbers and quoted text: reasons that differ only in these are of the same kind.
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d[\d.,]*(?:e[-+]?\d+)?")


def parse_prepare(arguments: Sequence[str]) -> Namespace:
    """Read the command line of ``raydec.prepare``.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(
        prog="python -m raydec.prepare",
        description="Turn a corpus into a feature store. An interrupted run is resumed.",
    )
    parser.add_argument("corpus_dir", type=Path, nargs="?", metavar="CORPUS_DIR", help="folder of the corpus")
    parser.add_argument(
        "store_dir", type=Path, nargs="?", metavar="STORE_DIR", help="folder of the feature store"
    )
    parser.add_argument(
        "--verify",
        type=Path,
        metavar="STORE_DIR",
        help="compare the files of a finished feature store with their checksums instead",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="label file; default: found by the format"
    )
    parser.add_argument(
        "--audio", type=Path, metavar="DIR", help="audio folder; default: found by the format"
    )
    parser.add_argument(
        "--unlabeled",
        type=Path,
        metavar="DIR",
        nargs="+",
        action="extend",
        default=[],
        help="folders of further speech to be used without labels, searched recursively",
    )
    parser.add_argument(
        "--format",
        metavar="NAME",
        default="auto",
        help="layout of the corpus: auto, msp-podcast, manifest, folder, or the name of an installed reader "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--label-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=(1.0, 7.0),
        help="range of valid labels (default: 1 7); rows outside it are skipped",
    )
    parser.add_argument(
        "--remove-dc",
        action="store_true",
        help="subtract each utterance's mean: for recordings with a DC offset",
    )
    _add_encoder(parser)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of parallel Ray tasks; 0: this process, without Ray; default: one per CPU, or 0 for a "
        "small corpus",
    )
    parser.add_argument("--address", help="Ray cluster to join; default: RAY_ADDRESS, else this machine")
    parser.add_argument("--restart", action="store_true", help="discard an earlier store in STORE_DIR")
    options = parser.parse_args(list(arguments))
    if options.verify is None and options.store_dir is None:
        parser.error("the following arguments are required: CORPUS_DIR STORE_DIR")
    if options.verify is not None and options.corpus_dir is not None:
        raise UserError(
            f"--verify {options.verify} cannot be combined with another folder; omit {options.corpus_dir}"
        )
    if options.encoder is None and (options.frames or options.tune or options.layers != "last"):
        raise UserError("--layers, --frames and --tune need an encoder; name one with --encoder")
    if options.frames and options.tune:
        raise UserError("--tune stores audio, --frames hidden states of the encoder; choose one of them")
    if options.encoder is not None and options.remove_dc:
        raise UserError("--remove-dc is for mel frames; encoders normalise their input themselves")
    if options.workers is not None and options.workers < 0:
        raise UserError(f"--workers must be 0 or more, not {options.workers}")
    return options


def _add_encoder(parser: Parser) -> None:
    parser.add_argument(
        "--encoder",
        metavar="NAME_OR_DIR",
        help="store the features of a pretrained encoder instead of mel frames: a folder, or "
        "hf:owner/name[@revision], of the WavLM, HuBERT, wav2vec2 or Whisper family",
    )
    parser.add_argument(
        "--layers",
        default="last",
        metavar="LAYERS",
        help="hidden layers of the encoder: last, all, or numbers such as 6,9,12 (default: %(default)s)",
    )
    parser.add_argument(
        "--frames",
        action="store_true",
        help="with --encoder: store whole hidden states, about 25 times as large as statistics of chunks",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="with --encoder: store audio instead, from which training can tune the encoder",
    )


def print_summary(summary: StoreSummary) -> None:
    """Print what is in the store, and what was skipped and why."""
    if summary.was_complete:
        note(
            f"{summary.path} is complete and the corpus has not changed: nothing to do "
            "(use --restart to rebuild it)"
        )
    for split, counts in summary.splits.items():
        note(
            f"  {split:<12} {counts['utterances']:>8} utterances, {counts['labeled']:>8} labeled, "
            f"{counts['duration_s'] / 3600:8.2f} h"
        )
    if summary.ratings:
        note(
            "  {ratings} ratings of {utterances} utterances by {annotators} annotators".format_map(
                summary.ratings
            )
        )
    for notice in summary.notices:
        out.print(f"warning: {notice}", markup=False)
    for line in _grouped(summary.warnings):
        out.print(f"warning: {line}", markup=False)
    if summary.skipped:
        out.print(f"skipped {len(summary.skipped)}, listed in {summary.path / 'skipped.csv'}:", markup=False)
    for line in _grouped((skip.file, skip.reason) for skip in summary.skipped):
        out.print(f"  {line}", markup=False)
    if not summary.was_complete:
        note(f"feature store: {summary.path}")


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """One line per kind of reason, the most frequent first, with count, reason and examples."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for file, reason in pairs:
        groups.setdefault(_PARTICULARS.sub("#", reason), []).append((file, reason))
    ranked = sorted(groups.values(), key=len, reverse=True)
    lines = [_group_line(group) for group in ranked[:_MAX_REASONS]]
    if len(ranked) > _MAX_REASONS:
        lines.append(f"and {len(ranked) - _MAX_REASONS} more kinds of reasons")
    return lines


def _group_line(group: Sequence[tuple[str, str]]) -> str:
    first_reason = group[0][1]
    alike = "" if all(reason == first_reason for _, reason in group) else " (or similar)"
    examples = ", ".join(file for file, _ in group[:_MAX_EXAMPLES])
    more = ", ..." if len(group) > _MAX_EXAMPLES else ""
    return f"{len(group)} × {first_reason}{alike}: {examples}{more}"
