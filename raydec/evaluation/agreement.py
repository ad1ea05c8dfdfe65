"""Agreement of a corpus's annotators on each attribute, which limits the scores that a model can reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int64

from raydec.corpus.table import flat_ratings
from raydec.learning.ccc import concordance


@dataclass(frozen=True)
class RaterAgreement:
    """Agreement on one attribute, over the utterances with at least two ratings.

    Attributes:
        ccc: CCC of one rating and the mean of the utterance's other ratings, over all ratings.
        alpha: Krippendorff's alpha for interval data: 1 for full agreement, 0 for chance; None if all
            ratings are the same, for which it is undefined.
        num_utterances: with at least two ratings.
        num_ratings: of these utterances.
    """

    ccc: float
    alpha: float | None
    num_utterances: int
    num_ratings: int


def rater_agreement(table: pa.Table, attribute: str) -> RaterAgreement | None:
    """Agreement of the annotators on the utterances that have a label for an attribute.

    Args:
        table: rows of a store.
        attribute: such as ``arousal``.

    Returns:
        None if the store has no ratings, or no utterance has two.
    """
    ratings, utterance = flat_ratings(table.filter(pc.is_valid(table[attribute])), attribute)
    together = np.bincount(utterance, minlength=1)[utterance] > 1
    if not together.any():
        return None
    _, utterance = np.unique(utterance[together], return_inverse=True)
    return agreement(ratings[together], utterance)


def agreement(
    ratings: Float64[np.ndarray, " rating"], utterance: Int64[np.ndarray, " rating"]
) -> RaterAgreement:
    """Agreement of ratings of utterances ``0`` to ``n - 1``, each of which has at least two.

    Alpha is ``1 - observed / expected``, where both are mean squared differences of two ratings: of the same
    utterance, each of its ratings counting once, and of any (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability"). The sum of the squared differences of all ordered pairs of m numbers is 2m times
    their squared deviations from their mean, so no pairs are formed.
    """
    counts = np.bincount(utterance)
    deviations = ratings - ratings.mean()  # centred, so that squares lose no digits
    totals = np.bincount(utterance, deviations)
    others = (totals[utterance] - deviations) / (counts[utterance] - 1)
    within = (deviations - (totals / counts)[utterance]) ** 2
    num = len(ratings)
    observed = 2 * float(np.sum(within * (counts / (counts - 1))[utterance])) / num
    expected = 2 * float(np.sum(deviations**2)) / (num - 1)
    alpha = None if np.ptp(ratings) == 0 else 1 - observed / expected
    return RaterAgreement(concordance(deviations, others), alpha, len(counts), num)
