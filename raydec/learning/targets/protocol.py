"""The interface of a target, between labels and training.

Torch-free to import, because rows are selected in processes that do not import torch. The loss is a
:class:`raydec.learning.losses.Criterion`, which is imported when :meth:`Target.criterion` is called.
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
    """A target that is learned from labels, fitted to the training rows of one store.

    Attributes:
        outputs: meaning of this target's columns of the network's output, which also determines which
            utterances are labeled.
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
        """Labels in the form that the loss expects; NaN if unlabeled."""
        ...

    def criterion(self) -> Any:
        """The loss, a :class:`raydec.learning.losses.Criterion`."""
        ...

    def score(
        self, predictions: Float64[np.ndarray, "utterance output"], table: pa.Table, rng: np.random.Generator
    ) -> Mapping[str, float]:
        """All metrics of this target over the labeled utterances of a split: :attr:`metrics` and their mean.

        Args:
            predictions: this target's outputs for every utterance, in the scale of the labels.
            table: the utterances.
            rng: for the resamples of intervals.
        """
        ...


@dataclass(frozen=True)
class TargetKind:
    """A kind of target, independent of any store.

    Attributes:
        is_wanted: whether a config selects it.
        metrics: names of its validation metrics for a config.
        selection: the metric that chooses the best epoch if this target is the first; larger is better.
        loss_name: see :class:`Target`.
        make: creates the target for a config, fitted to training rows of a store.
    """

    is_wanted: Callable[[Config], bool]
    metrics: Callable[[Config], tuple[str, ...]]
    selection: str
    loss_name: str
    make: Callable[[Config, FeatureStore, np.ndarray], Target]
