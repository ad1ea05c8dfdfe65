"""``python -m raydec.prepare CORPUS_DIR STORE_DIR``: turn a corpus into a feature store."""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raydec.console.arguments import Parser
from raydec.console.terminal import err, note, out, progress_bar, run_entry_point
from raydec.errors import UserError
from raydec.files.locks import exclusive
from raydec.verbosity import verbosity

if TYPE_CHECKING:
    from raydec.corpus.table import Corpus
    from raydec.features.front_end import FrontEnd
    from raydec.features.shards import ShardPlan, ShardResult
    from raydec.features.store_writer import StoreSummary

# The number of utterances that one core decodes in about the time that a local Ray takes to start.
_SMALL_CORPUS = 2000
_LINE_EVERY_S = 10.0
_MAX_REASONS, _MAX_EXAMPLES = 15, 3
# The parts in which two reasons of the same kind may differ: numbers and quoted text.
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d[\d.,]*(?:e[-+]?\d+)?")


def main(arguments: Sequence[str]) -> None:
    """Read the corpus, compute its features, and print what was skipped and why."""
    options = _parse(arguments)
    # Imported after the arguments are checked, because importing Arrow and torch takes seconds.
    from raydec.corpus.readers import read_corpus

    front_end = _front_end(options)
    corpus = read_corpus(
        options.corpus_dir,
        labels=options.labels,
        audio=options.audio,
        unlabeled=options.unlabeled,
        format=options.format,
        label_range=tuple(options.label_range),
    )
    note(f"{corpus.name}: {corpus.table.num_rows} utterances ({corpus.format})")
    summary = prepare_store(
        corpus,
        options.store_dir,
        num_workers=options.workers,
        address=options.address,
        restart=options.restart,
        front_end=front_end,
    )
    _print_summary(summary)


def _front_end(options: Namespace) -> FrontEnd:
    if options.encoder is None:
        from raydec.features.mel_front_end import MelFrontEnd

        return MelFrontEnd(remove_dc=options.remove_dc)
    from raydec.features.encoder_front_end import encoder_front_end

    return encoder_front_end(options.encoder, options.layers, pooled=not options.frames)


def prepare_store(
    corpus: Corpus,
    folder: Path,
    *,
    num_workers: int | None = None,
    address: str | None = None,
    restart: bool = False,
    synthetic: bool = False,
    quiet: bool = False,
    front_end: FrontEnd | None = None,
) -> StoreSummary:
    """Make a corpus's feature store, or resume an interrupted run.

    Args:
        corpus: the corpus to decode.
        folder: the store's folder; on a cluster, on storage that all nodes share.
        num_workers: Ray tasks at a time; 0 works in this process without Ray; None uses every CPU of the
            cluster at ``address``, or, for a large corpus, every CPU of this machine.
        address: Ray cluster to join; default: ``RAY_ADDRESS``, else this machine.
        restart: discard the contents of the folder and start over.
        synthetic: mark the store as synthetic speech, even if the corpus is not marked.
        quiet: show no progress.
        front_end: computes the features; default: mel frames.

    Raises:
        UserError: the corpus has no usable utterance, the folder holds other files or a store of another
            state of the corpus, the disk is full, or the cluster cannot be reached or does not share the
            folder.
    """
    from raydec.features.mel_front_end import MelFrontEnd
    from raydec.features.store_writer import open_folder

    corpus = replace(corpus, synthetic=corpus.synthetic or synthetic)
    front_end = front_end or MelFrontEnd()
    folder = Path(folder).absolute()
    open_folder(folder)
    with exclusive(folder, lambda: note(f"another process is preparing {folder}; waiting for it to end")):
        return _prepare_alone(corpus, folder, front_end, num_workers, address, restart, quiet)


def _prepare_alone(
    corpus: Corpus,
    folder: Path,
    front_end: FrontEnd,
    num_workers: int | None,
    address: str | None,
    restart: bool,
    quiet: bool,
) -> StoreSummary:
    from raydec.features.shards import finished_shard, plan_shards, write_shard
    from raydec.features.store_writer import clear_folder, completed_store, finish_store
    from raydec.ray_runtime.prepare import run_shards

    if restart:
        clear_folder(folder)
    plans = plan_shards(corpus.table)
    summary = completed_store(folder, corpus, plans, front_end)
    if summary is not None:
        return summary
    pending = [plan for plan in plans if finished_shard(plan, folder, front_end) is None]
    with _following(plans, pending, quiet) as progress:
        run_shards(
            functools.partial(write_shard, folder=folder, front_end=front_end),
            pending,
            num_workers=_workers(num_workers, address, progress.num_left, front_end),
            address=address,
            on_done=progress.advance,
        )
    return finish_store(folder, corpus, plans, front_end)


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = Parser(
        prog="python -m raydec.prepare",
        description="Turn a corpus into a feature store. An interrupted run is resumed.",
    )
    parser.add_argument("corpus_dir", type=Path, metavar="CORPUS_DIR", help="folder of the corpus")
    parser.add_argument("store_dir", type=Path, metavar="STORE_DIR", help="folder of the feature store")
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
        choices=("auto", "msp-podcast", "manifest", "folder"),
        default="auto",
        help="layout of the corpus (default: %(default)s)",
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
        help="Ray tasks at a time; 0: in this process without Ray; default: every CPU, 0 for small corpora",
    )
    parser.add_argument("--address", help="Ray cluster to join; default: RAY_ADDRESS, else this machine")
    parser.add_argument("--restart", action="store_true", help="discard an earlier store in STORE_DIR")
    options = parser.parse_args(list(arguments))
    if options.encoder is None and (options.frames or options.layers != "last"):
        raise UserError("--layers and --frames choose what an encoder gives; name one with --encoder")
    if options.encoder is not None and options.remove_dc:
        raise UserError("--remove-dc is for mel frames; encoders normalise their input themselves")
    if options.workers is not None and options.workers < 0:
        raise UserError(f"--workers must be 0 or more, not {options.workers}")
    return options


def _add_encoder(parser: Parser) -> None:
    parser.add_argument(
        "--encoder",
        metavar="NAME_OR_DIR",
        help="store what a pretrained encoder makes of the speech instead of mel frames: a folder, or "
        "hf:owner/name[@revision], of the families WavLM, HuBERT, wav2vec2 or Whisper",
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


def _workers(asked: int | None, address: str | None, num_left: int, front_end: FrontEnd) -> int | None:
    if asked is not None or address or os.environ.get("RAY_ADDRESS"):
        return asked
    cpus = os.cpu_count() or 1
    return 0 if cpus == 1 or num_left * front_end.cost < _SMALL_CORPUS else cpus


class _Progress:
    """Counts finished utterances and shows them as a bar or as log lines."""

    def __init__(self, num_done: int, num_left: int, quiet: bool) -> None:
        self.num_done = num_done
        self.num_left = num_left
        self._total = num_done + num_left
        # Log lines only with -v, and not beside the bar of a terminal.
        self._in_lines = not quiet and not err.is_terminal and verbosity() > 0
        self._last_line_s = time.monotonic()
        self.bar = progress_bar("utterances")
        self._task = self.bar.add_task("decoding", total=self._total, completed=num_done)

    def advance(self, result: ShardResult) -> None:
        num = len(result.stored) + len(result.skipped)
        self.num_done += num
        self.num_left -= num
        self.bar.update(self._task, completed=self.num_done)
        if self._in_lines and time.monotonic() - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            err.print(f"decoded {self.num_done} of {self._total} utterances", markup=False)


@contextmanager
def _following(plans: Sequence[ShardPlan], pending: Sequence[ShardPlan], quiet: bool) -> Iterator[_Progress]:
    num_left = sum(len(plan.utterances) for plan in pending)
    num_done = sum(len(plan.utterances) for plan in plans) - num_left
    progress = _Progress(num_done, num_left, quiet)
    if quiet:
        yield progress
        return
    if num_done:
        note(f"{num_done} utterances decoded by an earlier run are kept")
    with progress.bar:
        yield progress


def _print_summary(summary: StoreSummary) -> None:
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


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
