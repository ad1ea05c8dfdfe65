"""A run's view of a store: divided into folds, with some training labels hidden and its encoder located."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from raydec.config import ATTRIBUTES, NO_AGREEMENT, DataConfig
from raydec.errors import UserError
from raydec.features.folds import divide
from raydec.features.store import FeatureStore

_LABEL_COLUMNS = (*ATTRIBUTES, "emotion")


def view(store: FeatureStore, data: DataConfig) -> FeatureStore:
    """The store with the folds, the number of labeled utterances and the encoder that a config requests.

    Raises:
        UserError: see :func:`raydec.features.folds.divide`, :func:`hide_labels` and
            :meth:`raydec.features.front_end.FrontEnd.placed`.
    """
    if data.folds is not None:
        store = divide(store, data.folds)
    if data.labeled_utterances is not None:
        store = hide_labels(store, data)
    if data.encoder is not None:
        store.front_end = store.front_end.placed(data.encoder)
    return store


def hide_labels(store: FeatureStore, data: DataConfig) -> FeatureStore:
    """Keep the labels of ``data.labeled_utterances`` training utterances; the others become unlabeled.

    Utterances are drawn evenly over speakers, and a smaller number is a subset of a larger one with the same
    seed. The labels of all other splits stay.

    Raises:
        UserError: the training splits have fewer labeled utterances.
    """
    wanted = data.labeled_utterances
    assert wanted is not None
    rows = store.rows(data.train_split)
    rows = rows[_is_learned_from(store.utterances.take(rows), data)]
    if wanted > len(rows):
        raise UserError(
            f"data.labeled_utterances={wanted}, but {', '.join(data.train_split)} of {store.path} has "
            f"{len(rows)} labeled utterances; lower it, or leave it unset to use all"
        )
    order = _even_over_speakers(store.utterances["speaker"].take(rows).to_pylist(), data.labeled_seed)
    hidden = np.zeros(len(store), bool)
    hidden[rows[order[wanted:]]] = True
    table = store.utterances
    columns = {name: table[name] for name in _LABEL_COLUMNS if name in table.column_names}
    return store.with_columns({name: pc.if_else(hidden, None, column) for name, column in columns.items()})


def _is_learned_from(table: pa.Table, data: DataConfig) -> Bool[np.ndarray, " utterance"]:
    """Which utterances have a label for one of the attributes, or one of the classes, that a run learns."""
    known = [pc.is_valid(table[name]) for name in data.attributes]
    if data.emotions == ("all",):
        known.append(pc.fill_null(pc.not_equal(table["emotion"], NO_AGREEMENT), False))
    elif data.emotions:
        known.append(pc.is_in(table["emotion"], pa.array(data.emotions, pa.string())))
    return np.logical_or.reduce([column.to_numpy() for column in known])


def _even_over_speakers(speakers: Sequence[str | None], seed: int) -> Int64[np.ndarray, " place"]:
    """A random order in which every speaker comes once before any comes twice, as long as they last."""
    rng = np.random.default_rng(seed)
    turns: dict[str | None, int] = defaultdict(int)
    order = rng.permutation(len(speakers))
    keys = []
    for place in order:
        keys.append(turns[speakers[place]])
        turns[speakers[place]] += 1
    return order[np.argsort(keys, kind="stable")]
