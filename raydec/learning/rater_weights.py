"""Weights of labels in the training loss, by the agreement of their annotators.

A label is the mean of a few annotators' ratings. Its squared standard error is the variance of the ratings,
divided by their number. The weight of a label is

    (1 + squared error / mean squared error) ** -power

With power 1, this is the usual weight of observations of unequal precision, the inverse of their variance,
for a model whose errors are as large as those of the average label. Larger powers give more weight to labels
with small errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64

from raydec.corpus.table import flat_ratings


@dataclass(frozen=True)
class RaterWeights:
    """The weights of an attribute's labels, fitted to training rows.

    Attributes:
        attribute: such as ``arousal``.
        power: with 0, all labels have the same weight.
        mean_variance: variance of the ratings of one utterance, over all training utterances.
        mean_error: mean squared standard error of the training labels.
        mean_weight: mean weight of the rated training labels, by which weights are divided.
    """

    attribute: str
    power: float
    mean_variance: float
    mean_error: float
    mean_weight: float

    @classmethod
    def fit(cls, table: pa.Table, attribute: str, power: float) -> RaterWeights | None:
        """Fit the weights to the rated training utterances.

        Args:
            table: training rows of a store.
            attribute: utterances without a label for it do not count.
            power: see the module.

        Returns:
            None if no labeled utterance has two ratings, without which there is no variance.
        """
        count, deviations = _spread(table.filter(pc.is_valid(table[attribute])), attribute)
        freedom = np.maximum(count - 1, 0).sum()
        if not freedom:
            return None
        variance = float(deviations.sum() / freedom)
        errors = _squared_errors(count, deviations, variance)
        error = float(np.nanmean(errors))
        return cls(attribute, power, variance, error, float(np.nanmean(_weights(errors, error, power))))

    def of(self, table: pa.Table) -> Float64[np.ndarray, " utterance"]:
        """The weight of each row's label; 1 without ratings, which is also the mean of the training labels'.

        Args:
            table: rows of a store.
        """
        errors = _squared_errors(*_spread(table, self.attribute), self.mean_variance)
        weights = _weights(errors, self.mean_error, self.power) / self.mean_weight
        return np.where(np.isnan(errors), 1.0, weights)


def _spread(
    table: pa.Table, attribute: str
) -> tuple[Float64[np.ndarray, " utterance"], Float64[np.ndarray, " utterance"]]:
    """The number of ratings of each row, and the sum of their squared deviations from their mean."""
    ratings, utterance = flat_ratings(table, attribute)
    count = np.bincount(utterance, minlength=table.num_rows).astype(np.float64)
    means = np.bincount(utterance, ratings, table.num_rows) / np.maximum(count, 1)
    deviations = np.bincount(utterance, (ratings - means[utterance]) ** 2, table.num_rows)
    return count, deviations.astype(np.float64)  # without any ratings, numpy returns integers


def _squared_errors(
    count: Float64[np.ndarray, " utterance"], deviations: Float64[np.ndarray, " utterance"], variance: float
) -> Float64[np.ndarray, " utterance"]:
    """Squared standard errors of mean ratings; NaN without a rating.

    The variance of a few ratings is uncertain: two annotators may agree completely by chance. Therefore each
    utterance's variance is a weighted mean of its own, with ``count - 1`` degrees of freedom, and of that
    over all utterances, with one. For a single rating, it is the variance over all utterances.
    """
    rated = np.where(count > 0, count, np.nan)
    return (deviations + variance) / rated**2


def _weights(
    errors: Float64[np.ndarray, " utterance"], mean_error: float, power: float
) -> Float64[np.ndarray, " utterance"]:
    return (1 + errors / mean_error) ** -power if mean_error > 0 else np.ones_like(errors)
