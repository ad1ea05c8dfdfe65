"""Statistics of the frames of a run's training utterances."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from raydec.config import ATTRIBUTES
from raydec.features.frame_moments import FrameMoments
from raydec.features.front_end import Scale
from raydec.features.store import FeatureStore


def frame_statistics(
    store: FeatureStore, rows: Int64[np.ndarray, " utterance"], scale: Scale
) -> tuple[Float32[np.ndarray, " width"], Float32[np.ndarray, " width"]]:
    """Mean and population standard deviation per value over the frames of some utterances.

    The store has them for the labeled utterances of its split ``train``. For other utterances they are
    computed, which takes about a minute per hundred hours of speech; the result is the same in every process.
    For frames that are not normalised, they are 0 and 1.

    Args:
        store: the feature store.
        rows: increasing rows of the store, at least one.
        scale: one of the scales of its front end.
    """
    if not store.front_end.is_normalized:
        return np.zeros(store.front_end.width, np.float32), np.ones(store.front_end.width, np.float32)
    is_known = store.normalization_source == "labeled_train"
    if is_known and np.array_equal(rows, store.rows("train", ATTRIBUTES)):
        return store.frame_statistics(scale)
    moments = FrameMoments.empty((scale,), store.front_end.width)
    for row in rows:
        moments = moments.merge(FrameMoments.of(store.frames(row), (scale,)))
    mean, std = moments.mean_std(scale)
    return mean.astype(np.float32), std.astype(np.float32)
