"""Scores of classes: macro-F1 and unweighted average recall, with intervals over speakers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from raydec.learning.resampling import draw_units, percentile_interval, resampling_units


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval.

    Attributes:
        value: over all labeled utterances.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of a model that predicts classes.

    Attributes:
        confusion: number of utterances by true and by predicted class.
        f1: macro-F1, the mean of the classes' F1.
        uar: unweighted average recall, the mean of the classes' recalls.
        unit: the resampled unit, ``speaker`` or ``utterance``.
        num_units: number of units.
    """

    confusion: Int64[np.ndarray, "true predicted"]
    f1: Estimate
    uar: Estimate
    unit: str
    num_units: int

    @property
    def num_utterances(self) -> int:
        """Number of labeled utterances."""
        return int(self.confusion.sum())

    @property
    def recalls(self) -> list[float | None]:
        """Recall of each class; None for a class without an utterance."""
        counts = zip(np.diagonal(self.confusion).tolist(), self.confusion.sum(axis=1).tolist(), strict=True)
        return [hits / total if total else None for hits, total in counts]


def class_scores(
    probabilities: Float64[np.ndarray, "utterance class"],
    labels: Int64[np.ndarray, " utterance"],
    speakers: Sequence[str | None] | np.ndarray | None,
    rng: np.random.Generator,
    *,
    num_resamples: int = 2000,
) -> ClassScores:
    """Score the most probable class of every labeled utterance; intervals are a bootstrap over speakers.

    Args:
        probabilities: of each class; any scores will do.
        labels: index of the class; -1 if unlabeled, such utterances are ignored.
        speakers: see :func:`raydec.learning.resampling.resampling_units`.
        rng: source of randomness.
        num_resamples: number of bootstrap samples.
    """
    labeled = labels >= 0
    units, unit = resampling_units(speakers, labeled)
    num_classes, num_units = probabilities.shape[1], int(units.max(initial=0)) + 1
    predicted = probabilities[labeled].argmax(axis=1)
    by_unit = np.zeros((num_units, num_classes, num_classes), np.int64)
    np.add.at(by_unit, (units, labels[labeled], predicted), 1)
    flat = by_unit.reshape(num_units, -1).astype(np.float64)
    draws = [counts @ flat for counts in draw_units(num_units, num_resamples, rng)]
    resampled = np.concatenate(draws).reshape(-1, num_classes, num_classes)
    confusion = by_unit.sum(axis=0)
    return ClassScores(
        confusion,
        _estimate(confusion, resampled, macro_f1),
        _estimate(confusion, resampled, average_recall),
        unit,
        num_units,
    )


def macro_f1(
    confusion: Float64[np.ndarray, "*batch true predicted"],
) -> Float64[np.ndarray, "*batch"] | np.floating:
    """Mean F1 over the classes with at least one utterance; 0 if there are none."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    # F1 is the number of hits over the mean of the numbers of true and of predicted members of the class.
    return _mean_over_present(2 * hits, confusion.sum(-1) + confusion.sum(-2), confusion)


def average_recall(
    confusion: Float64[np.ndarray, "*batch true predicted"],
) -> Float64[np.ndarray, "*batch"] | np.floating:
    """Mean recall over the classes with at least one utterance; 0 if there are none."""
    return _mean_over_present(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1), confusion)


def _mean_over_present(
    numerator: np.ndarray, denominator: np.ndarray, confusion: np.ndarray
) -> np.ndarray | np.floating:
    present = confusion.sum(-1) > 0
    ratios = np.where(present, numerator / np.where(present, denominator, 1), 0.0)
    return ratios.sum(-1) / np.maximum(present.sum(-1), 1)


def _estimate(confusion: np.ndarray, resampled: np.ndarray, measure: Callable[[np.ndarray], Any]) -> Estimate:
    return Estimate(float(measure(confusion.astype(np.float64))), *percentile_interval(measure(resampled)))
