"""Types passed between a search and its runner on Ray: the job of a trial, and the remaining trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydec.config import Config
from raydec.placement import Placement
from raydec.search.config import TuneConfig
from raydec.search.folds import with_fold
from raydec.search.ledger import Entry, run_name
from raydec.search.plan import apply_setting
from raydec.search.score import Curve

Report = Callable[[list[dict[str, float | int | None]], bool], None]
"""Called whenever a run's history has grown, with the history and whether it is complete."""


@dataclass(frozen=True)
class StartCheckpoint:
    """A checkpoint from which the scheduler lets a trial continue.

    Attributes:
        folder: the checkpoint.
        run: the run that wrote it.
    """

    folder: Path
    run: str


@dataclass(frozen=True)
class TrialJob:
    """The part of a job that is common to all trials of a search.

    Attributes:
        base: settings common to all runs, including the feature store's path.
        share: resources that a trial takes.
        metric: the searched metric.
        exchange_epochs: number of epochs between exchanges of checkpoints (population based training); None
            without exchanges.
    """

    base: Config
    share: Placement
    metric: str
    exchange_epochs: int | None
    folds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remaining:
    """The remaining trials of a search.

    Attributes:
        entries: trials to run; those that have started already come first.
        num_new: number of further settings to request from the searcher (optuna).
        past: trials that have ended, with their curves.
    """

    entries: tuple[Entry, ...]
    num_new: int
    past: tuple[tuple[Entry, Curve], ...]

    @property
    def num_trials(self) -> int:
        """Number of trials to run."""
        return len(self.entries) + self.num_new


def run_config(
    job: TrialJob, number: int, setting: Mapping[str, Any], seed: int, fold: str | None = None
) -> Config:
    """Settings of one run of a search."""
    config = apply_setting(job.base, setting)
    if fold is not None:
        assert isinstance(job.base, TuneConfig) and job.base.search.folds is not None
        config = with_fold(config, job.base.search.folds, job.folds, fold)
    return config.model_copy(update={"name": run_name(number, seed, fold), "seed": seed})
