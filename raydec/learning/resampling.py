"""The bootstrap over speakers: resampling units, draws, and percentile intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from raydec.learning.randomness import repeat_blocks


def resampling_units(
    speakers: Sequence[str | None] | np.ndarray | None, labeled: Bool[np.ndarray, " utterance"]
) -> tuple[Int64[np.ndarray, " row"], str]:
    """The resampling unit of each labeled utterance, numbered from 0, and the kind of the units.

    Utterances of one speaker resemble each other, so intervals from drawing single utterances would be too
    narrow; therefore whole speakers are drawn. An utterance of an unknown speaker is a separate unit. If
    fewer than two speakers are known, utterances are drawn.

    Args:
        speakers: speaker of each utterance; None if unknown.
        labeled: whether each utterance is labeled.

    Returns:
        The units, and their kind, ``speaker`` or ``utterance``.
    """
    num_rows = int(labeled.sum())
    names = [] if speakers is None else [name for name, keep in zip(speakers, labeled, strict=True) if keep]
    known = sorted({name for name in names if name is not None})
    if len(known) < 2:
        return np.arange(num_rows), "utterance"
    number = {name: unit for unit, name in enumerate(known)}
    alone = iter(range(len(known), len(known) + num_rows))
    return np.array([next(alone) if name is None else number[name] for name in names]), "speaker"


def draw_units(
    num_units: int, num_resamples: int, rng: np.random.Generator
) -> Iterator[Float64[np.ndarray, "resample unit"]]:
    """Number of draws of each unit in each resample, in blocks of resamples."""
    for count in repeat_blocks(num_resamples, num_units):
        yield rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=count).astype(np.float64)


def percentile_interval(values: Float64[np.ndarray, " resample"], level: float = 0.95) -> tuple[float, float]:
    """The ends of the interval that contains the middle ``level`` of the resamples."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
