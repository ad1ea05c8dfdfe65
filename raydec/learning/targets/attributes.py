"""Emotional attributes: numbers, learned by their concordance with the labels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raydec.config import Config
from raydec.corpus.ratings import RATINGS_FILE
from raydec.errors import UserError
from raydec.features.store import FeatureStore
from raydec.learning.rater_weights import RaterWeights
from raydec.learning.targets.protocol import TargetKind
from raydec.model.outputs import Outputs

Kind = Literal["exact", "reference"]
SELECTION = "ccc"
LOSS_NAME = "emotion"


class AttributesTarget:
    """One or more of arousal, dominance and valence. See :class:`raydec.learning.targets.protocol.Target`.

    Args:
        outputs: the attributes and the scale of their training labels.
        loss_weight: factor on the loss.
        ccc_kind: ``exact`` or ``reference``, see :meth:`raydec.learning.ccc.CccMoments.ccc`.
        raters: weights of the labels of each attribute in the loss; default: all labels weigh the same.
    """

    loss_name = LOSS_NAME

    def __init__(
        self,
        outputs: Outputs,
        loss_weight: float = 1.0,
        ccc_kind: Kind = "exact",
        raters: tuple[RaterWeights, ...] = (),
    ) -> None:
        self.outputs = outputs
        self.num_columns = len(outputs) + len(raters)
        self.loss_weight = loss_weight
        self.metrics = _metrics(outputs.attributes)
        self._ccc_kind: Kind = ccc_kind
        self._raters = raters

    def encode(self, table: pa.Table) -> Float64[np.ndarray, "utterance column"]:
        """Labels with mean 0 and standard deviation 1 over the training rows; then their weights, if any."""
        labels = (self._labels(table) - self.outputs.mean) / self.outputs.std
        return np.column_stack([labels, *(weights.of(table) for weights in self._raters)])

    def criterion(self) -> Any:
        """The mean of 1 - CCC over the attributes."""
        from raydec.learning.losses import CccLoss

        return CccLoss(self._ccc_kind, weighted=bool(self._raters))

    def score(
        self, predictions: Float64[np.ndarray, "utterance output"], table: pa.Table, rng: np.random.Generator
    ) -> dict[str, float]:
        """CCC of each attribute over its labeled utterances, and their mean."""
        from raydec.learning.ccc import concordance

        labels = self._labels(table)
        scores = {}
        for column, name in enumerate(self.metrics):
            known = np.isfinite(labels[:, column])
            scores[name] = concordance(predictions[known, column], labels[known, column])
        return scores | {SELECTION: float(np.mean(list(scores.values())))}

    def _labels(self, table: pa.Table) -> Float64[np.ndarray, "utterance attribute"]:
        columns = [table[attribute].to_numpy() for attribute in self.outputs.attributes]
        return np.stack(columns, axis=1).astype(np.float64)


def _metrics(attributes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"ccc_{attribute}" for attribute in attributes)


def _make(config: Config, store: FeatureStore, train_rows: np.ndarray) -> AttributesTarget:
    """Fit the label scale to the training rows.

    Raises:
        UserError: no training utterance is labeled for an attribute, all labels are equal, or
            ``loss.rater_weight`` is set and the annotators' ratings are missing.
    """
    attributes = config.data.attributes
    table = store.utterances.take(train_rows)
    labels = {attribute: table[attribute].drop_null().to_numpy() for attribute in attributes}
    missing = [attribute for attribute, values in labels.items() if not len(values)]
    if missing:
        raise UserError(
            f"data.attributes: no training utterance of {store.path} is labeled for {', '.join(missing)}; "
            "drop it"
        )
    constant = [attribute for attribute, values in labels.items() if not np.ptp(values) > 0]
    if constant:
        raise UserError(
            f"data.attributes: the training labels of {', '.join(constant)} are all equal; drop it"
        )
    mean, std = ([float(statistic(values)) for values in labels.values()] for statistic in (np.mean, np.std))
    outputs = Outputs(attributes, tuple(mean), tuple(std))
    raters = _rater_weights(config, table, store) if config.loss.rater_weight else ()
    return AttributesTarget(outputs, config.loss.emotion_weight, config.loss.ccc, raters)


def _rater_weights(config: Config, table: pa.Table, store: FeatureStore) -> tuple[RaterWeights, ...]:
    """The weights of the labels of each attribute, fitted to training rows.

    Raises:
        UserError: an attribute has no training label with two annotators' ratings.
    """
    power = config.loss.rater_weight
    found = {name: RaterWeights.fit(table, name, power) for name in config.data.attributes}
    missing = [name for name, weights in found.items() if weights is None]
    if missing:
        raise UserError(
            f"loss.rater_weight={power:g}: no training utterance of {store.path} has two annotators' ratings "
            f"of {', '.join(missing)}; set it to 0, or prepare it again with {RATINGS_FILE} and --restart"
        )
    return tuple(weights for weights in found.values() if weights is not None)


KIND = TargetKind(
    is_wanted=lambda config: bool(config.data.attributes),
    metrics=lambda config: _metrics(config.data.attributes),
    selection=SELECTION,
    loss_name=LOSS_NAME,
    make=_make,
)
