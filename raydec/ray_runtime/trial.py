"""A trial's driver: the process in which Tune runs a setting, one Ray Train run after another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from raydec.config import Config
from raydec.errors import UserError
from raydec.learning.worker import CHECKPOINT_FOLDER
from raydec.search.score import mean_score, score_run
from raydec.search.trial import TrialJob, run_config

ORIGIN_RUN, ORIGIN_NAME = "run", "name"


def drive(job: TrialJob, trial: Mapping[str, Any]) -> None:
    """Train a setting with its seeds in turn, telling Tune of every epoch.

    Args:
        job: what all trials share.
        trial: ``number``, ``setting`` and ``seeds``.

    Raises:
        Exception: whatever training raises, but for a :class:`UserError`: that would fail again, so that
            the trial ends with a ``problem`` instead of being retried.
    """
    board = _ScoreBoard(job.metric)
    try:
        for seed in trial["seeds"]:
            config = run_config(job.base, trial["number"], trial["setting"], seed)
            start = _exploited(config) if job.exchanges else None
            report = _RunReport(board, config, job.exchanges)
            job.train(config, job.share, report, start)
            report.close()
    except UserError as error:
        tune.report(board.result() | {"problem": str(error)})
        return
    except Exception as error:
        tune.report(board.result() | {"problem": _one_line(error)})
        raise
    tune.report(board.result() | {"finished": True})


class _ScoreBoard:
    """A trial's scores: those of the seeds that are through, and the one in training."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.epochs_before = 0
        self.closed: list[float | None] = []
        self._begun = time.monotonic()
        self._last: dict[str, Any] = {"epoch": 0}

    def update(self, epoch: int, score: float | None, latest: float | None) -> dict[str, Any]:
        """Note an epoch of the run in training; returns what Tune is to hear of it."""
        self._last = {"epoch": self.epochs_before + epoch}
        mean = mean_score([*self.closed, score])
        if mean is not None:
            self._last["score"] = mean
        if latest is not None:
            self._last["latest"] = latest
        return self.result()

    def result(self) -> dict[str, Any]:
        """The last epoch's result, and the seconds that this attempt has taken."""
        return {**self._last, "wall_s": time.monotonic() - self._begun}


class _RunReport:
    """Passes a run's new epochs on to Tune, each once, with a checkpoint where trials exchange them."""

    def __init__(self, board: _ScoreBoard, config: Config, exchanges: bool) -> None:
        self._board = board
        self._config = config
        self._exchanges = exchanges
        self._reported = 0
        self._score: float | None = None

    def __call__(self, history: list[dict[str, float | int | None]], complete: bool) -> None:
        # An epoch's metrics are written before its checkpoint: that is there once the next epoch's are.
        ready = len(history) if complete or not self._exchanges else len(history) - 1
        for epoch in range(self._reported + 1, ready + 1):
            run = score_run(history[:epoch], self._board.metric)
            self._score = None if run is None else run.score
            latest = history[epoch - 1].get(self._board.metric)
            self._reported = epoch
            result = self._board.update(epoch, self._score, latest)
            tune.report(result, checkpoint=self._checkpoint(epoch) if self._exchanges else None)

    def close(self) -> None:
        """The run is through: its score now belongs to the trial's mean."""
        self._board.closed.append(self._score)
        self._board.epochs_before += self._reported

    def _checkpoint(self, epoch: int) -> tune.Checkpoint | None:
        folder = Path(self._config.output_dir, str(self._config.name), CHECKPOINT_FOLDER)
        path = folder / f"epoch-{epoch:05d}"
        try:
            checkpoint = tune.Checkpoint(str(path))
            checkpoint.set_metadata({ORIGIN_RUN: self._config.name, ORIGIN_NAME: path.name})
        except FileNotFoundError:  # already replaced by newer ones
            return None
        return checkpoint


def _exploited(config: Config) -> Path | None:
    """The checkpoint of another trial that the scheduler wants this one to go on from, if it does."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    origin = checkpoint.get_metadata()
    if origin.get(ORIGIN_RUN) == config.name:
        return None  # paused and taken up again: the run's own checkpoints are at least as new
    folder = Path(tempfile.mkdtemp(prefix="raydec-exploited-")) / origin[ORIGIN_NAME]
    checkpoint.to_directory(folder)
    return folder


def _one_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
