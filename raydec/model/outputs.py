"""The meaning of a network's outputs.

Predictions, evaluation, reports, ONNX and model cards all work from this description. It has two kinds of
outputs, numbers and classes, so a new target of either kind needs no change there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from raydec.features.store import FeatureStore


@dataclass(frozen=True)
class Outputs:
    """Columns of a network's emotion branch: numbers first, then the logits of classes.

    Attributes:
        attributes: names of the numbers; each is a column of the utterance table.
        label_mean: mean of each number's training labels, which undoes the normalisation.
        label_std: their population standard deviation.
        classes: column of the utterance table to its classes, in order.
    """

    attributes: tuple[str, ...] = ()
    label_mean: tuple[float, ...] = ()
    label_std: tuple[float, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of columns."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """A name per column: ``arousal``, or ``emotion_A`` for the probability of a class."""
        of_classes = (f"{group}_{name}" for group, names in self.classes.items() for name in names)
        return (*self.attributes, *of_classes)

    @property
    def groups(self) -> dict[str, slice]:
        """The columns of each group of classes."""
        found, first = {}, len(self.attributes)
        for group, names in self.classes.items():
            found[group] = slice(first, first + len(names))
            first += len(names)
        return found

    @property
    def mean(self) -> Float64[np.ndarray, " output"]:
        """Offset that undoes the normalisation; 0 for classes."""
        return np.array([*self.label_mean, *[0.0] * self._num_classes])

    @property
    def std(self) -> Float64[np.ndarray, " output"]:
        """Factor that undoes the normalisation, applied before the offset; 1 for classes."""
        return np.array([*self.label_std, *[1.0] * self._num_classes])

    def in_label_scale(
        self, values: Float64[np.ndarray, "*batch output"]
    ) -> Float64[np.ndarray, "*batch output"]:
        """Undo the normalisation of the numbers; probabilities stay as they are."""
        return values * self.std + self.mean

    def labeled(self, table: pa.Table) -> Bool[np.ndarray, " utterance"]:
        """Mask of the rows of an utterance table that have a label for an attribute or a group of classes."""
        numbers = [pc.is_valid(table[name]).to_numpy() for name in self.attributes]
        classes = [self.class_numbers(table, group) >= 0 for group in self.classes]
        return np.logical_or.reduce([*numbers, *classes])

    def class_numbers(self, table: pa.Table, group: str) -> Int64[np.ndarray, " utterance"]:
        """Index of each row's class in a group; -1 without a class, or if the class is not in the group."""
        places = pc.index_in(table[group], pa.array(self.classes[group], pa.string()))
        return pc.fill_null(places, -1).to_numpy().astype(np.int64)

    @property
    def label(self) -> str:
        """The predicted quantities, as words for a message."""
        return ", ".join([*self.attributes, *(f"{g} ({', '.join(c)})" for g, c in self.classes.items())])

    def by_class(self, values: Float64[np.ndarray, " output"]) -> dict[str, dict[str, float]]:
        """The probability of each class, by group, from the predictions for one utterance."""
        return {
            group: dict(zip(self.classes[group], values[columns].tolist(), strict=True))
            for group, columns in self.groups.items()
        }

    def labeled_rows(self, store: FeatureStore, splits: str | Sequence[str]) -> Int64[np.ndarray, " row"]:
        """Rows of one or several splits that are :meth:`labeled`, in the store's order."""
        rows = store.rows(split=splits)
        return rows[self.labeled(store.utterances.take(rows))]

    def merge(self, other: Outputs) -> Outputs:
        """The outputs of both, side by side; the numbers of both come first."""
        return Outputs(
            self.attributes + other.attributes,
            self.label_mean + other.label_mean,
            self.label_std + other.label_std,
            self.classes | other.classes,
        )

    @property
    def _num_classes(self) -> int:
        return sum(map(len, self.classes.values()))
