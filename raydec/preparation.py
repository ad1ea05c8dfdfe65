"""Makes the feature store of a corpus, in this process or on Ray."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raydec.console.terminal import err, note, progress_bar
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
        UserError: the corpus has no usable utterance, the folder has other files or the store of an earlier
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
        # Where there is no terminal for the bar, -v prints log lines.
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
