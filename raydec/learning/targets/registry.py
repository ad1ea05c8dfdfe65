"""The list of targets, and the combined targets of a run."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raydec.config import Config
from raydec.features.store import FeatureStore
from raydec.learning.targets import attributes, emotions
from raydec.learning.targets.protocol import Target, TargetKind
from raydec.model.outputs import Outputs

KINDS: tuple[TargetKind, ...] = (attributes.KIND, emotions.KIND)
"""All targets, in the order of the network's outputs: those that predict numbers come before those that
predict classes. The first one that a config selects chooses the best epoch."""


@dataclass(frozen=True)
class Targets:
    """The targets of a run, which one network learns from labels.

    Attributes:
        members: at least one.
        selection: the validation metric that chooses the best epoch.
    """

    members: tuple[Target, ...]
    selection: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the validation metrics of all targets."""
        return tuple(name for target in self.members for name in target.metrics)

    @functools.cached_property
    def outputs(self) -> Outputs:
        """All columns of the network's emotion branch."""
        return functools.reduce(Outputs.merge, (target.outputs for target in self.members))

    def encode(self, table: pa.Table) -> Float64[np.ndarray, "utterance column"]:
        """The concatenated encoded labels of all targets; NaN if unlabeled."""
        return np.concatenate([target.encode(table) for target in self.members], axis=1)

    def parts(self) -> Iterator[tuple[Target, slice, slice]]:
        """Each target, its columns of the network's outputs, and its columns of the encoded labels."""
        output = column = 0
        for target in self.members:
            width = len(target.outputs)
            yield target, slice(output, output + width), slice(column, column + target.num_columns)
            output, column = output + width, column + target.num_columns

    def score(
        self, predictions: Float64[np.ndarray, "utterance output"], table: pa.Table, rng: np.random.Generator
    ) -> dict[str, float]:
        """All metrics of all targets over a split; see :meth:`Target.score`."""
        scores: dict[str, float] = {}
        for (target, outputs, _), own in zip(self.parts(), rng.spawn(len(self.members)), strict=True):
            scores |= target.score(predictions[:, outputs], table, own)
        return scores


def make_targets(config: Config, store: FeatureStore, train_rows: np.ndarray) -> Targets:
    """The targets that a config selects.

    Args:
        config: the run's settings.
        store: the store with the labels.
        train_rows: rows of the training splits, labeled or not.

    Raises:
        UserError: the training rows lack labels for a target.
    """
    members = tuple(kind.make(config, store, train_rows) for kind in _wanted(config))
    return Targets(members, selection_metric(config))


def selection_metric(config: Config) -> str:
    """The validation metric that chooses the best epoch, without the prefix ``valid/``."""
    return _wanted(config)[0].selection


def target_metrics(config: Config) -> set[str]:
    """All keys of ``metrics.jsonl`` that the targets of a config write."""
    kinds = _wanted(config)
    names = {f"valid/{name}" for kind in kinds for name in (*kind.metrics(config), kind.selection)}
    return names | {f"train/loss_{kind.loss_name}" for kind in kinds}


def _wanted(config: Config) -> list[TargetKind]:
    return [kind for kind in KINDS if kind.is_wanted(config)]
