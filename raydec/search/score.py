"""Scores of trials, during training and at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raydec.learning.recipes import KEPT_EPOCH
from raydec.learning.targets.registry import KINDS

# Earlier versions of raydec called KEPT_EPOCH "selection/epoch".
SELECTION_METRICS = (KEPT_EPOCH, "selection/epoch", *(f"valid/{kind.selection}" for kind in KINDS))
"""Metrics that select the epoch to keep, the one with the largest value. The first that a run has is used,
independently of ``search.metric``."""

History = Sequence[Mapping[str, float | int | None]]
"""The lines of a run's ``metrics.jsonl``."""

Curve = list[tuple[int, float]]
"""Epochs and scores of a trial, as reported to the scheduler."""


@dataclass(frozen=True)
class RunScore:
    """A run up to some epoch.

    Attributes:
        epochs: epochs trained.
        best_epoch: the epoch whose model is kept, counted from 1.
        score: the searched metric at that epoch; None if missing or not finite.
        train_s: seconds that the epochs took.
    """

    epochs: int
    best_epoch: int
    score: float | None
    train_s: float


def score_run(history: History, metric: str) -> RunScore | None:
    """Score a run by its history; None before its first epoch."""
    if not history:
        return None
    # On ties, the first epoch, as in training.
    best = max(range(len(history)), key=lambda index: (_selected_by(history[index]), -index))
    value = history[best].get(metric)
    seconds = math.fsum(line.get("time/epoch_s") or 0.0 for line in history)
    return RunScore(
        len(history), best + 1, None if value is None or not math.isfinite(value) else float(value), seconds
    )


def mean_score(scores: Sequence[float | None]) -> float | None:
    """Mean over the seeds of a setting; None if any of them has no score."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def trial_curve(histories: Sequence[History], metric: str) -> Curve:
    """The curve of a trial that trains several seeds in turn: epochs are cumulative, scores averaged."""
    points: Curve = []
    closed: list[float | None] = []
    before = 0
    for history in histories:
        score = None
        for epoch in range(1, len(history) + 1):
            run = score_run(history[:epoch], metric)
            score = None if run is None else run.score
            mean = mean_score([*closed, score])
            if mean is not None:
                points.append((before + epoch, mean))
        closed.append(score)
        before += len(history)
    return points


def _selected_by(line: Mapping[str, float | int | None]) -> float:
    value = next((line[name] for name in SELECTION_METRICS if name in line), None)
    return -math.inf if value is None or math.isnan(value) else float(value)
