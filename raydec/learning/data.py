"""The chunk sets for training, validation and test of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raydec.config import Config
from raydec.features.chunk_set import ChunkSet
from raydec.features.frame_statistics import frame_statistics
from raydec.features.front_end import ChunkFormat
from raydec.features.normalization import FrameNormalizer
from raydec.features.store import FeatureStore
from raydec.learning.selection import select_rows
from raydec.learning.starting_model import keep_label_scale, starting_model
from raydec.learning.targets.registry import Targets
from raydec.model.saved import TrainedModel


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
    if start is not None and config.model.init_normalization == "keep":
        statistics = start.feature_mean.astype(np.float32), start.feature_std.astype(np.float32)
        targets = keep_label_scale(targets, start)
    else:
        statistics = frame_statistics(store, rows.labeled, form.scale)
    normalizer = FrameNormalizer(*statistics, form.scale, form.clip)

    def chunk_set(rows: np.ndarray) -> ChunkSet:
        return ChunkSet(store, rows, normalizer, form)

    return TrainingData(
        labeled=chunk_set(rows.labeled),
        unlabeled=chunk_set(rows.unlabeled) if len(rows.unlabeled) else None,
        pooled=chunk_set(np.concatenate([rows.labeled, rows.unlabeled])),
        validation=chunk_set(rows.validation),
        tests={name: chunk_set(chosen) for name, chosen in rows.tests.items()},
        targets=targets,
        start=start,
        normalizer=normalizer,
        form=form,
    )
