"""Confidence intervals of CCC, and tests of the difference between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from raydec.learning.ccc import concordance
from raydec.learning.resampling import draw_units, percentile_interval, resampling_units


@dataclass(frozen=True)
class CccEstimate:
    """A CCC with its confidence interval.

    Attributes:
        ccc: of all labeled utterances.
        low: lower end of the interval.
        high: upper end of the interval.
        unit: the resampled unit, ``speaker`` or ``utterance``.
        num_units: number of units.
        num_utterances: number of labeled utterances.
    """

    ccc: float
    low: float
    high: float
    unit: str
    num_units: int
    num_utterances: int


@dataclass(frozen=True)
class CccDifference:
    """The CCC of one model minus that of another, on the same utterances.

    Attributes:
        difference: first minus second.
        low: lower end of its confidence interval.
        high: upper end of its confidence interval.
        p_value: two-sided, of the hypothesis of no difference.
        unit: the resampled unit, ``speaker`` or ``utterance``.
        num_units: number of units.
    """

    difference: float
    low: float
    high: float
    p_value: float
    unit: str
    num_units: int


def bootstrap_ccc(
    prediction: Float[np.ndarray, "*seed utterance"],
    target: Float[np.ndarray, "utterance"],
    speakers: Sequence[str | None] | np.ndarray | None,
    rng: np.random.Generator,
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> CccEstimate:
    """CCC over utterances with a percentile interval of the bootstrap over speakers.

    For unknown speakers, see :func:`raydec.learning.resampling.resampling_units`.

    Args:
        prediction: one score per utterance, or one row of scores per seed. With several seeds, the CCC is
            the mean over seeds, and every resample of speakers scores all of them: the interval does not
            include the spread over seeds.
        target: NaN if unlabeled; such utterances are ignored.
        speakers: speaker of each utterance; None if unknown.
        rng: source of randomness.
        num_resamples: number of bootstrap samples.
        level: coverage of the interval.
    """
    labeled = ~np.isnan(target)
    units, unit = resampling_units(speakers, labeled)
    sums = _sums_by_seed(prediction, target, labeled, units)
    num_units = len(sums[0])
    resampled = np.concatenate(
        [_mean_ccc(counts, sums) for counts in draw_units(num_units, num_resamples, rng)]
    )
    low, high = percentile_interval(resampled, level)
    return CccEstimate(_mean_concordance(prediction, target), low, high, unit, num_units, int(labeled.sum()))


def compare_ccc(
    first: Float[np.ndarray, "*first_seed utterance"],
    second: Float[np.ndarray, "*second_seed utterance"],
    target: Float[np.ndarray, "utterance"],
    speakers: Sequence[str | None] | np.ndarray | None,
    rng: np.random.Generator,
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> CccDifference:
    """Paired bootstrap of the difference of two models' CCC: both are scored on the same resamples.

    The p-value is twice the smaller share of resamples on either side of no difference, but at least
    ``2 ** (1 - units)``, the minimum of a sign test: two speakers who agree prove nothing, however often they
    are drawn.

    Args:
        first: one model's scores, as ``prediction`` of :func:`bootstrap_ccc`.
        second: the other model's scores of the same utterances; the number of seeds may differ.
        target: NaN if unlabeled.
        speakers: see :func:`bootstrap_ccc`.
        rng: source of randomness.
        num_resamples: number of bootstrap samples; the p-value is at least 2 / (num_resamples + 1).
        level: coverage of the interval.
    """
    labeled = ~np.isnan(target)
    units, unit = resampling_units(speakers, labeled)
    sums = [_sums_by_seed(scores, target, labeled, units) for scores in (first, second)]
    num_units = len(sums[0][0])
    differences = np.concatenate(
        [
            _mean_ccc(counts, sums[0]) - _mean_ccc(counts, sums[1])
            for counts in draw_units(num_units, num_resamples, rng)
        ]
    )
    tail = 1 + min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    low, high = percentile_interval(differences, level)
    difference = _mean_concordance(first, target) - _mean_concordance(second, target)
    p_value = min(1.0, max(2 * tail / (num_resamples + 1), 2.0 ** (1 - num_units)))
    return CccDifference(difference, low, high, p_value, unit, num_units)


def _mean_concordance(
    prediction: Float[np.ndarray, "*seed utterance"], target: Float[np.ndarray, "utterance"]
) -> float:
    return float(np.mean([concordance(scores, target) for scores in np.atleast_2d(prediction)]))


def _unit_sums(
    prediction: Float[np.ndarray, "row"], target: Float[np.ndarray, "row"], units: Int64[np.ndarray, "row"]
) -> Float64[np.ndarray, "unit 6"]:
    """For each unit: number of rows, sums of both variables, of their squares and of their product."""
    if not len(units):
        return np.zeros((1, 6))
    # A common shift does not change the CCC and keeps the squares accurate; this one makes equal constants
    # exactly 0.
    shift = np.float64(target[0])
    x, y = prediction.astype(np.float64) - shift, target.astype(np.float64) - shift
    columns = (np.ones(len(x)), x, y, x * x, y * y, x * y)
    return np.stack([np.bincount(units, weights) for weights in columns], axis=1)


def _sums_by_seed(
    prediction: Float[np.ndarray, "*seed utterance"],
    target: Float[np.ndarray, "utterance"],
    labeled: np.ndarray,
    units: Int64[np.ndarray, "row"],
) -> list[np.ndarray]:
    return [_unit_sums(scores[labeled], target[labeled], units) for scores in np.atleast_2d(prediction)]


def _mean_ccc(
    counts: Float64[np.ndarray, "resample unit"], sums_by_seed: list[np.ndarray]
) -> Float64[np.ndarray, "resample"]:
    """The CCC of each resample, averaged over seeds."""
    return np.mean([_ccc_of_sums(counts @ sums) for sums in sums_by_seed], axis=0)


def _ccc_of_sums(sums: Float64[np.ndarray, "resample 6"]) -> Float64[np.ndarray, "resample"]:
    count = np.maximum(sums[:, 0], 1)
    x, y, xx, yy, xy = (sums[:, 1:] / count[:, None]).T
    denominator = (xx - x * x) + (yy - y * y) + (x - y) ** 2
    return np.where(denominator > 0, 2 * (xy - x * y) / np.where(denominator > 0, denominator, 1), 0.0)
