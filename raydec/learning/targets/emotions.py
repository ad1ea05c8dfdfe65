"""Emotion classes, learned by cross-entropy, beside or instead of the attributes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raydec.config import NO_AGREEMENT, Config
from raydec.errors import UserError
from raydec.features.store import FeatureStore
from raydec.learning.targets.protocol import TargetKind
from raydec.model.outputs import Outputs

COLUMN = "emotion"
ALL = "all"
LOSS_NAME = "class"
METRICS = tuple(f"{score}_{COLUMN}{end}" for score in ("f1", "uar") for end in ("", "_low", "_high"))
SELECTION = METRICS[0]
# Enough for an interval in every epoch.
NUM_RESAMPLES = 500


class EmotionsTarget:
    """One of several emotion classes. See :class:`raydec.learning.targets.protocol.Target`.

    Args:
        classes: at least two; utterances of other classes count as unlabeled.
        loss_weight: factor on the loss.
        class_weights: factor on the loss of the utterances of each class; default: 1.
    """

    loss_name = LOSS_NAME
    num_columns = 1
    metrics = METRICS

    def __init__(
        self,
        classes: tuple[str, ...],
        loss_weight: float = 1.0,
        class_weights: tuple[float, ...] | None = None,
    ) -> None:
        self.outputs = Outputs(classes={COLUMN: classes})
        self.loss_weight = loss_weight
        self._class_weights = class_weights or (1.0,) * len(classes)

    def encode(self, table: pa.Table) -> Float64[np.ndarray, "utterance 1"]:
        """The index of each utterance's class."""
        numbers = self.outputs.class_numbers(table, COLUMN)
        return np.where(numbers >= 0, numbers, np.nan)[:, None].astype(np.float64)

    def criterion(self) -> Any:
        """Cross-entropy, a weighted mean over labeled chunks."""
        from raydec.learning.losses import CrossEntropyLoss

        return CrossEntropyLoss(self._class_weights)

    def score(
        self, predictions: Float64[np.ndarray, "utterance class"], table: pa.Table, rng: np.random.Generator
    ) -> dict[str, float]:
        """Macro-F1 and unweighted average recall, and the ends of their 95% intervals over speakers."""
        from raydec.learning.classification import class_scores

        labels = self.outputs.class_numbers(table, COLUMN)
        speakers = table["speaker"].to_pylist()
        found = class_scores(predictions, labels, speakers, rng, num_resamples=NUM_RESAMPLES)
        numbers = (end for score in (found.f1, found.uar) for end in (score.value, score.low, score.high))
        return dict(zip(METRICS, numbers, strict=True))


def _make(config: Config, store: FeatureStore, train_rows: np.ndarray) -> EmotionsTarget:
    """Choose the classes among those of the training rows.

    Raises:
        UserError: a class has no training utterance, or there are fewer than two.
    """
    found = Counter(store.utterances.take(train_rows)[COLUMN].drop_null().to_pylist())
    classes = config.data.emotions
    if classes == (ALL,):
        classes = tuple(sorted(found.keys() - {NO_AGREEMENT}))
    have = ", ".join(f"{name} ({count})" for name, count in sorted(found.items())) or "none"
    missing = [name for name in classes if not found[name]]
    if missing:
        raise UserError(
            f"data.emotions: no training utterance of {store.path} has the class {', '.join(missing)}; "
            f"its classes are {have}"
        )
    if len(classes) < 2:
        raise UserError(
            f"data.emotions={ALL}: training utterances of {store.path} have classes {have}; "
            "at least two are needed"
        )
    weights = None
    if config.loss.balance_classes:
        total = sum(found[name] for name in classes)
        weights = tuple(total / (len(classes) * found[name]) for name in classes)
    return EmotionsTarget(classes, config.loss.class_weight, weights)


KIND = TargetKind(
    is_wanted=lambda config: bool(config.data.emotions),
    metrics=lambda config: METRICS,
    selection=SELECTION,
    loss_name=LOSS_NAME,
    make=_make,
)
