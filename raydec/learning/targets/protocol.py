"""The seam between labels and training: what a target has to say of itself.

Nothing here imports torch: which rows a run uses is decided in processes that do without it. The loss is a
:class:`raydec.learning.losses.Criterion`, imported where :meth:`Target.criterion` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raydec.config import Config
from raydec.features.store import FeatureStore
from raydec.model.outputs import Outputs


@runtime_checkable
class Target(Protocol):
    """Something that labels teach, fitted to the training rows of one store.

    Attributes:
        outputs: the columns of the network that are this target's, what they mean, and so which utterances
            are labeled.
        num_columns: columns of :meth:`encode`.
        loss_name: its loss is ``train/loss_<loss_name>`` in the metrics.
        loss_weight: factor on its loss.
        metrics: names of its validation metrics; they appear as ``valid/<name>``.
    """

    outputs: Outputs
    num_columns: int
    loss_name: str
    loss_weight: float
    metrics: tuple[str, ...]

    def encode(self, table: pa.Table) -> Float64[np.ndarray, "utterance column"]:
        """Labels as the loss takes them; NaN where an utterance has none."""
        ...

    def criterion(self) -> Any:
        """The loss, a :class:`raydec.learning.losses.Criterion`."""
        ...

    def score(
        self, predictions: Float64[np.ndarray, "utterance output"], table: pa.Table, rng: np.random.Generator
    ) -> Mapping[str, float]:
        """Every metric of this target over the labeled utterances of a split, :attr:`metrics` and its mean.

        Args:
            predictions: this target's outputs of every utterance, in the scale of the labels.
            table: the utterances.
            rng: for the resamples of an interval.
        """
        ...


@dataclass(frozen=True)
class TargetKind:
    """A target before any store is open.

    Attributes:
        is_wanted: whether a config asks for it.
        metrics: names of its validation metrics under a config.
        selection: the one that chooses the best epoch where this target is the first; larger is better.
        loss_name: see :class:`Target`.
        make: the target for a config, fitted to training rows of a store.
    """

    is_wanted: Callable[[Config], bool]
    metrics: Callable[[Config], tuple[str, ...]]
    selection: str
    loss_name: str
    make: Callable[[Config, FeatureStore, np.ndarray], Target]
