"""A durable record of a search's trials, from which a killed search is resumed.

Metrics, checkpoints and summaries are in the run directories. The ledger adds only what these do not record:
which settings the searcher drew, which trials the scheduler stopped, and which failed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from raydec.search.space import Setting

LEDGER_FILE = "ledger.jsonl"

State = Literal["begun", "finished", "stopped", "failed"]


@runtime_checkable
class TextFolder(Protocol):
    """Storage for text files, such as :class:`raydec.runs.run_folder.RunFolder`."""

    def read(self, name: str) -> str | None:
        """A file's text, or None."""
        ...

    def write(self, name: str, text: str) -> None:
        """Replace a file atomically."""
        ...

    def sync(self) -> None:
        """Make what was written durable."""
        ...


@dataclass(frozen=True)
class Entry:
    """One trial.

    Attributes:
        number: number of its setting, from 0.
        setting: dotted config key to value.
        seeds: the seeds it trains, one after another.
        folds: the folds that it tests with each seed; empty without cross-validation.
        state: its last known state.
        attempts: number of failures.
        wall_s: seconds from start to end, over all attempts that ended.
        problem: reason of the last failure, in one line.
    """

    number: int
    setting: Setting
    seeds: tuple[int, ...]
    state: State = "begun"
    folds: tuple[str, ...] = ()
    attempts: int = 0
    wall_s: float = 0.0
    problem: str | None = None

    @property
    def key(self) -> str:
        """Identifies the trial: the name of its only run, or the common prefix of its runs' names."""
        names = self.run_names
        return names[0] if len(names) == 1 else f"{self.number:04d}"

    @property
    def runs(self) -> tuple[tuple[int, str | None], ...]:
        """Seed and fold of each of its runs, in the order of training."""
        folds: tuple[str | None, ...] = self.folds or (None,)
        return tuple((seed, fold) for seed in self.seeds for fold in folds)

    @property
    def run_names(self) -> tuple[str, ...]:
        """Names of its runs, in the order of :attr:`runs`."""
        return tuple(run_name(self.number, seed, fold) for seed, fold in self.runs)


def run_name(number: int, seed: int, fold: str | None = None) -> str:
    """Name of the run that trains a setting with a seed."""
    return f"{number:04d}-s{seed}" + ("" if fold is None else f"-{fold}")


class Ledger:
    """The entries of a search; every change is written at once.

    Args:
        folder: the search's directory.
    """

    def __init__(self, folder: TextFolder) -> None:
        self._folder = folder
        self._entries: dict[str, Entry] = {}
        for line in (folder.read(LEDGER_FILE) or "").splitlines():
            fields = json.loads(line)
            lists = {name: tuple(fields.get(name, ())) for name in ("seeds", "folds")}
            entry = Entry(**{**fields, **lists})
            self._entries[entry.key] = entry

    def entries(self) -> list[Entry]:
        """All entries, in the order in which they were begun."""
        return list(self._entries.values())

    def get(self, key: str) -> Entry | None:
        """A trial's entry, or None if it has not started."""
        return self._entries.get(key)

    def begin(self, entry: Entry) -> None:
        """Record that a trial starts, for the first time or again."""
        known = self._entries.get(entry.key, entry)
        self._put(replace(known, setting=entry.setting, state="begun"))

    def end(self, key: str, state: State, *, wall_s: float = 0.0, problem: str | None = None) -> None:
        """Record that a trial ended."""
        entry = self._entries[key]
        failures = entry.attempts + (1 if state == "failed" else 0)
        self._put(
            replace(entry, state=state, attempts=failures, wall_s=entry.wall_s + wall_s, problem=problem)
        )

    def _put(self, entry: Entry) -> None:
        self._entries[entry.key] = entry
        text = "".join(json.dumps(asdict(known)) + "\n" for known in self._entries.values())
        self._folder.write(LEDGER_FILE, text)
        self._folder.sync()
