"""How much a grouping says about a number: the emotional dependency of clusters."""

from __future__ import annotations

import numpy as np


def eta_squared(values: np.ndarray, clusters: np.ndarray) -> float:
    """Share of the variance of ``values`` that lies between clusters (eta squared of one-way ANOVA).

    Args:
        values: float ``[item]``; NaN items are left out.
        clusters: int ``[item]``.

    Returns:
        0 (clusters say nothing) to 1 (they say all); 0 when the values do not vary.
    """
    known = np.isfinite(values)
    values, clusters = values[known].astype(np.float64), clusters[known]
    if not len(values):
        return 0.0
    centred = values - values.mean()
    total = float(centred @ centred)
    if total == 0.0:
        return 0.0
    sums = np.bincount(clusters, weights=centred)
    counts = np.bincount(clusters)
    between = float(np.sum(sums[counts > 0] ** 2 / counts[counts > 0]))
    return between / total
