"""The chunk sets for training, validation and test of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from raydec.config import Config
from raydec.errors import UserError
from raydec.features.chunk_set import ChunkSet
from raydec.features.frame_statistics import frame_statistics
from raydec.features.front_end import ChunkFormat
from raydec.features.normalization import FrameNormalizer
from raydec.features.speaker_means import Means, speaker_means, std_within_speakers
from raydec.features.store import FeatureStore
from raydec.learning.selection import select_rows
from raydec.learning.starting_model import keep_label_scale, starting_model
from raydec.learning.targets.registry import Targets
from raydec.model.trained import TrainedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The chunk sets of a run, and its targets."""

    labeled: ChunkSet
    unlabeled: ChunkSet | None
    pooled: ChunkSet
    """Labeled utterances, then unlabeled ones, as one set."""
    validation: ChunkSet
    tests: dict[str, ChunkSet]
    targets: Targets
    """The targets that are learned from labels."""
    normalizer: FrameNormalizer
    start: TrainedModel | None
    """The model to start from; None: random weights."""
    form: ChunkFormat
    """The chunk geometry, with unset values of the config filled in."""


def select_data(config: Config, store: FeatureStore) -> TrainingData:
    """The chunks of the utterances that a config selects.

    Raises:
        UserError: see :func:`raydec.learning.selection.select_rows` and
            :meth:`raydec.features.front_end.FrontEnd.chunk_format`.
    """
    rows = select_rows(config, store)
    form = store.front_end.chunk_format(config.features)
    start = starting_model(config, store.front_end, form)
    targets = rows.targets
    pooled = np.concatenate([rows.labeled, rows.unlabeled])
    means: Means | None = None
    if form.speaker_normalization == "mean":
        # Means use only utterances of this run, so that runs with and without a pool can be compared.
        means = speaker_means(store, pooled, form.scale)
        _warn_of_unknown_speakers(store, pooled, means)
    if start is not None and config.model.init_normalization == "keep":
        statistics = start.feature_mean.astype(np.float32), start.feature_std.astype(np.float32)
        targets = keep_label_scale(targets, start)
    else:
        center, std = frame_statistics(store, rows.labeled, form.scale)
        if means is not None:
            std = std_within_speakers(store, rows.labeled, form.scale, means, center)
        statistics = center, std
    normalizer = FrameNormalizer(*statistics, form.scale, form.clip)

    def chunk_set(rows: np.ndarray, means: Means | None = None) -> ChunkSet:
        return ChunkSet(store, rows, normalizer, form, means)

    return TrainingData(
        labeled=chunk_set(rows.labeled, means),
        unlabeled=chunk_set(rows.unlabeled, means) if len(rows.unlabeled) else None,
        pooled=chunk_set(pooled, means),
        validation=chunk_set(rows.validation),
        tests={name: chunk_set(chosen) for name, chosen in rows.tests.items()},
        targets=targets,
        start=start,
        normalizer=normalizer,
        form=form,
    )


def _warn_of_unknown_speakers(store: FeatureStore, rows: np.ndarray, means: Means) -> None:
    """Warn of training utterances that speaker normalisation cannot move.

    Raises:
        UserError: there is no speaker at all.
    """
    if not means:
        raise UserError(
            f"features.speaker_normalization=mean: no training utterance of {store.path} has a speaker; "
            "name speakers in the labels, or leave it unset"
        )
    unknown = store.utterances["speaker"].take(rows).null_count
    if unknown:
        logger.warning(
            "features.speaker_normalization=mean: %s of %s training utterances have no speaker; theirs stay "
            "as they are",
            unknown,
            len(rows),
        )
