"""What a trial is asked to do, and what is left of a search: the words that Ray and the study share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydec.config import Config
from raydec.placement import Placement
from raydec.search.ledger import Entry, run_name
from raydec.search.plan import apply_setting
from raydec.search.score import Curve

Report = Callable[[list[dict[str, float | int | None]], bool], None]
"""Takes a run's history as often as it has grown, and whether it is complete."""


@dataclass(frozen=True)
class Given:
    """A checkpoint that the scheduler gave a trial to go on from.

    Attributes:
        folder: the checkpoint.
        run: the run that wrote it.
    """

    folder: Path
    run: str


@dataclass(frozen=True)
class TrialJob:
    """What all trials of a search share.

    Attributes:
        base: settings that all runs have in common, the feature store's path among them.
        share: what a trial takes of the cluster.
        metric: the searched metric.
        exchange_epochs: epochs after which trials hand checkpoints to each other (population based
            training); None: they don't.
    """

    base: Config
    share: Placement
    metric: str
    exchange_epochs: int | None


@dataclass(frozen=True)
class Remaining:
    """What is left of a search.

    Attributes:
        entries: trials to run, those first that were begun already.
        num_new: further settings to ask the searcher for (optuna).
        past: trials that have ended, with their curves.
    """

    entries: tuple[Entry, ...]
    num_new: int
    past: tuple[tuple[Entry, Curve], ...]

    @property
    def num_trials(self) -> int:
        """Trials to run."""
        return len(self.entries) + self.num_new


def run_config(base: Config, number: int, setting: Mapping[str, Any], seed: int) -> Config:
    """Settings of one run of a search."""
    config = apply_setting(base, setting)
    return config.model_copy(update={"name": run_name(number, seed), "seed": seed})
