"""Statistics of the frames that a run is trained on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from raydec.config import ATTRIBUTES
from raydec.features.mel import MelMoments
from raydec.features.parameters import Scale
from raydec.features.store import FeatureStore


def band_statistics(
    store: FeatureStore, rows: Int64[np.ndarray, " utterance"], scale: Scale
) -> tuple[Float32[np.ndarray, " mel"], Float32[np.ndarray, " mel"]]:
    """Mean and population standard deviation per band over the frames of some utterances.

    The store has them for the labeled utterances of its split ``train``; those of others are computed, which
    takes about a minute per hundred hours of speech. Every process that computes them finds the same numbers.

    Args:
        store: the feature store.
        rows: rising rows of the store, at least one.
        scale: mel power or its logarithm.
    """
    is_known = store.normalization_source == "labeled_train"
    if is_known and np.array_equal(rows, store.rows("train", ATTRIBUTES)):
        return store.band_statistics(scale)
    moments = MelMoments.empty(store.parameters.n_mels)
    for row in rows:
        moments = moments.merge(MelMoments.of(store.frames(row)))
    mean, std = moments.mean_std(scale)
    return mean.astype(np.float32), std.astype(np.float32)
