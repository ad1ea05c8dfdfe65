"""The display of a running search: one line per finished trial, and a status line on a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.status import Status

from raydec.console.terminal import err, out
from raydec.search.ledger import Entry
from raydec.search.plan import SearchPlan
from raydec.search.ranking import describe_setting


class TrialLines:
    """Prints the events of a search; as a context manager, it also shows the status line.

    Args:
        plan: the search.
        num_ended: number of trials that ended in earlier attempts.
    """

    def __init__(self, plan: SearchPlan, num_ended: int) -> None:
        self._search = plan.config.search
        self._total = plan.num_trials
        self._ended = num_ended
        self._best: float | None = None
        self._running: dict[str, int] = {}
        self._begun_at = time.monotonic()
        self._started_at: dict[str, float] = {}
        self._status: Status | None = err.status("starting trials") if err.is_terminal else None

    def __enter__(self) -> TrialLines:
        """Show the status line."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the status line."""
        if self._status is not None:
            self._status.stop()

    def begun(self, entry: Entry) -> None:
        """See :class:`raydec.search.events.SearchEvents`."""
        self._running.setdefault(entry.key, 0)
        self._started_at.setdefault(entry.key, time.monotonic())
        self._refresh()

    def advanced(self, entry: Entry, epoch: int, score: float | None) -> None:
        """See :class:`raydec.search.events.SearchEvents`."""
        self._running[entry.key] = epoch
        self._note(score)
        self._refresh()

    def retried(self, entry: Entry, problem: str) -> None:
        """See :class:`raydec.search.events.SearchEvents`."""
        out.print(f"         {self._name(entry)}  failed, retrying: {problem}", markup=False)

    def ended(self, entry: Entry, score: float | None) -> None:
        """See :class:`raydec.search.events.SearchEvents`."""
        self._ended += 1
        epochs = self._running.pop(entry.key, 0)
        seconds = time.monotonic() - self._started_at.pop(entry.key, time.monotonic())
        shown = "-" if score is None else f"{score:.4f}"
        note = {"stopped": f"  stopped after epoch {epochs}", "failed": f"  failed: {entry.problem}"}
        out.print(
            f"{self._ended:>4}/{self._total:<4}{self._name(entry)}  {self._search.metric} {shown}  "
            f"{seconds:.0f} s{note.get(entry.state, '')}",
            markup=False,
        )
        self._note(score)
        self._refresh()

    def _name(self, entry: Entry) -> str:
        setting = describe_setting(entry.setting)
        words = [setting]
        words += [f"seed={entry.seeds[0]}"] if len(entry.seeds) == 1 else []
        words += [entry.folds[0]] if len(entry.folds) == 1 else []
        return " ".join(words)

    def _note(self, score: float | None) -> None:
        better = max if self._search.mode == "max" else min
        if score is not None:
            self._best = score if self._best is None else better(self._best, score)

    def _refresh(self) -> None:
        if self._status is None:
            return
        epochs = ", ".join(f"{key} epoch {epoch}" for key, epoch in sorted(self._running.items())[:4])
        best = "" if self._best is None else f"; best {self._best:.4f}"
        elapsed = time.monotonic() - self._begun_at
        self._status.update(
            f"{self._ended}/{self._total} done; {epochs or 'starting'}{best}; {elapsed:.0f} s"
        )
