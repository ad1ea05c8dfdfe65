"""Scores a model's classes on a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raydec.evaluation.result import ClassResult
from raydec.learning.classification import class_scores
from raydec.learning.randomness import generator_for
from raydec.model.outputs import Outputs


def class_results(
    outputs: Outputs,
    split: str,
    table: pa.Table,
    predictions: Float64[np.ndarray, "utterance output"],
    speakers: Sequence[str | None],
    seed: int,
    num_resamples: int,
) -> dict[str, ClassResult]:
    """Score each group of classes for which the split has labels.

    Args:
        outputs: meaning of the predictions.
        split: its name, which together with the seed determines the resamples.
        table: the utterances.
        predictions: all predictions for each utterance.
        speakers: speaker of each utterance; None if unknown.
        seed: of the resamples.
        num_resamples: number of bootstrap samples.
    """
    results = {}
    for group, columns in outputs.groups.items():
        labels = outputs.class_numbers(table, group)
        if (labels < 0).all():
            continue
        rng = generator_for(seed, "bootstrap", split, group)
        found = class_scores(predictions[:, columns], labels, speakers, rng, num_resamples=num_resamples)
        results[group] = ClassResult(outputs.classes[group], found)
    return results
