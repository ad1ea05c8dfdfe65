"""A trial's driver: the process in which Tune trains a setting, with one Ray Train run per seed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from raydec.config import Config
from raydec.errors import DivergedError, UserError
from raydec.files.storage import CHECKPOINT_FOLDER
from raydec.ray_runtime.train_trial import train_trial
from raydec.search.ledger import Entry
from raydec.search.score import mean_score, score_run
from raydec.search.trial_job import StartCheckpoint, TrialJob, run_config

ORIGIN_RUN, ORIGIN_NAME = "run", "name"


def named_trial(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The specification with the number of the trial of this name.

    Population based training copies the whole specification of a better trial, including its number. The
    trial's name does not change and starts with its own number.
    """
    return {**spec, "number": int(name.partition("-")[0])}


def drive(job: TrialJob, trial: Mapping[str, Any]) -> None:
    """Train a setting with its seeds in turn, and report every epoch to Tune.

    Args:
        job: the part of the job that is common to all trials.
        trial: ``number``, ``setting``, ``seeds`` and ``folds``.

    Raises:
        Exception: any exception of the training, except :class:`UserError` and :class:`DivergedError`: these
            would recur, so the trial ends with a ``problem`` and is not retried.
    """
    trial = named_trial(trial, tune.get_context().get_trial_name())
    board = _ScoreBoard(job.metric)
    try:
        entry = Entry(0, {}, tuple(trial["seeds"]), folds=tuple(trial.get("folds", ())))
        for seed, fold in entry.runs:
            config = run_config(job, trial["number"], trial["setting"], seed, fold)
            start = _start_checkpoint() if job.exchange_epochs else None
            report = _RunReport(board, config, job.exchange_epochs)
            train_trial(config, job.share, report, start)
            report.close()
    except (UserError, DivergedError) as error:
        tune.report(board.result() | {"problem": str(error)})
        return
    except Exception as error:
        tune.report(board.result() | {"problem": _one_line(error)})
        raise
    tune.report(board.result() | {"finished": True})


class _ScoreBoard:
    """A trial's scores: those of finished seeds, and of the seed in training."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.epochs_before = 0
        self.closed: list[float | None] = []
        self._begun = time.monotonic()
        self._last: dict[str, Any] = {"epoch": 0}

    def update(self, epoch: int, score: float | None, latest: float | None) -> dict[str, Any]:
        """Record an epoch of the run in training; returns the result to report to Tune."""
        self._last = {"epoch": self.epochs_before + epoch}
        mean = mean_score([*self.closed, score])
        if mean is not None:
            self._last["score"] = mean
        if latest is not None:
            self._last["latest"] = latest
        return self.result()

    def result(self) -> dict[str, Any]:
        """The last epoch's result, and the duration of this attempt in seconds."""
        return {**self._last, "wall_s": time.monotonic() - self._begun}


class _RunReport:
    """Reports each new epoch of a run to Tune, with a checkpoint if trials exchange them."""

    def __init__(self, board: _ScoreBoard, config: Config, exchange_epochs: int | None) -> None:
        self._board = board
        self._config = config
        self._exchange_epochs = exchange_epochs
        self._reported = 0
        self._score: float | None = None

    def __call__(self, history: list[dict[str, float | int | None]], complete: bool) -> None:
        # An epoch's metrics are written before its checkpoint, so the checkpoint is surely complete only when
        # the next epoch's metrics exist.
        ready = len(history) if complete or not self._exchange_epochs else len(history) - 1
        if self._exchange_epochs and self._reported == 0:
            # Epochs before a pause, or of the run that this one continues, have been reported already.
            self._reported = max(0, ready - 1)
        for epoch in range(self._reported + 1, ready + 1):
            run = score_run(history[:epoch], self._board.metric)
            self._score = None if run is None else run.score
            latest = history[epoch - 1].get(self._board.metric)
            self._reported = epoch
            result = self._board.update(epoch, self._score, latest)
            tune.report(result, checkpoint=self._checkpoint(epoch))

    def close(self) -> None:
        """Add the score of the finished run to the trial's mean."""
        self._board.closed.append(self._score)
        self._board.epochs_before += self._reported

    def _checkpoint(self, epoch: int) -> tune.Checkpoint | None:
        if self._exchange_epochs is None or epoch % self._exchange_epochs:
            return None
        folder = Path(self._config.output_dir, str(self._config.name), CHECKPOINT_FOLDER)
        path = folder / f"epoch-{epoch:05d}"
        try:
            checkpoint = tune.Checkpoint(str(path))
            checkpoint.set_metadata({ORIGIN_RUN: self._config.name, ORIGIN_NAME: path.name})
        except FileNotFoundError:  # already replaced by a newer one
            return None
        return checkpoint


def _start_checkpoint() -> StartCheckpoint | None:
    """The checkpoint from which the scheduler lets this trial continue: its own, or a better trial's."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    origin = checkpoint.get_metadata()
    folder = Path(tempfile.mkdtemp(prefix="raydec-start-")) / origin[ORIGIN_NAME]
    checkpoint.to_directory(folder)
    return StartCheckpoint(folder, origin[ORIGIN_RUN])


def _one_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
