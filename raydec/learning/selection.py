"""Which utterances of a store play which part in a run: their rows, before any frame is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raydec.config import Config
from raydec.errors import UserError
from raydec.features.store import FeatureStore
from raydec.features.store_cache import local_store
from raydec.splits import UNLABELED_SPLIT


@dataclass(frozen=True)
class SelectedRows:
    """Rows of the store by their part, and the scale of the labels."""

    labeled: np.ndarray
    """int64 ``[utterance]``, as the other rows."""
    unlabeled: np.ndarray
    validation: np.ndarray
    tests: dict[str, np.ndarray]
    label_mean: np.ndarray
    """float64 ``[attribute]``, of the labeled utterances."""
    label_std: np.ndarray
    """float64 ``[attribute]``, population standard deviation."""


def open_store(config: Config) -> FeatureStore:
    """Open a resolved config's store, fetched first where it is elsewhere.

    Raises:
        UserError: see :func:`local_store` and :meth:`FeatureStore.open`.
    """
    assert config.data.store is not None
    return FeatureStore.open(local_store(config.data.store))


def check_data(config: Config) -> None:
    """See that a resolved config's store opens and has what the config asks for.

    Raises:
        UserError: see :func:`open_store` and :func:`select_rows`.
    """
    select_rows(config, open_store(config))


def select_rows(config: Config, store: FeatureStore) -> SelectedRows:
    """Pick the labeled, unlabeled, validation and test utterances that a config asks for.

    An utterance of the training splits with none of the chosen attributes labeled joins the unlabeled pool.
    Statistics are those of the labeled utterances, whatever their splits are called.

    Raises:
        UserError: a split is missing or has no labels, or fewer unlabeled utterances than asked for.
    """
    data = config.data
    labeled = _labeled_rows(store, data.train_split, data.attributes, "data.train_split")
    validation = _labeled_rows(store, data.validation_split, data.attributes, "data.validation_split")
    rest = np.setdiff1d(store.rows(split=data.train_split), labeled)
    unlabeled = _unlabeled_rows(config, np.union1d(rest, store.rows(split=UNLABELED_SPLIT)))
    means, stds = _label_scale(store, labeled, data.attributes)
    return SelectedRows(labeled, unlabeled, validation, _test_rows(config, store), means, stds)


def _labeled_rows(
    store: FeatureStore, splits: Sequence[str], attributes: Sequence[str], key: str
) -> np.ndarray:
    """Labeled rows of some splits, in the store's order; none of the splits may be without any."""
    for split in splits:
        if not len(store.rows(split=split, labeled_for=attributes)):
            raise UserError(
                f"{key}={split}: store {store.path} has no utterance of that split labeled for "
                f"{', '.join(attributes)}; its splits are {', '.join(store.splits)}"
            )
    return store.rows(split=splits, labeled_for=attributes)


def _unlabeled_rows(config: Config, pool: np.ndarray) -> np.ndarray:
    wanted = config.data.unlabeled_utterances
    if wanted is None:
        return pool
    if wanted > len(pool):
        raise UserError(
            f"data.unlabeled_utterances={wanted}, but the store has {len(pool)} unlabeled utterances; "
            "lower it or leave it unset to use all"
        )
    rng = np.random.default_rng(config.data.unlabeled_seed)
    return np.sort(rng.choice(pool, size=wanted, replace=False))


def _label_scale(
    store: FeatureStore, labeled: np.ndarray, attributes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each attribute's labels."""
    table = store.utterances.take(labeled)
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
    return np.array([np.mean(v) for v in labels.values()]), np.array([np.std(v) for v in labels.values()])


def _test_rows(config: Config, store: FeatureStore) -> dict[str, np.ndarray]:
    """Rows of each test split; unset, of every split named ``test*`` that has labels and no other use."""
    data = config.data
    if data.test_split is not None:
        return {
            split: _labeled_rows(store, [split], data.attributes, "data.test_split")
            for split in data.test_split
        }
    used = (*data.train_split, *data.validation_split)
    free = [split for split in store.splits if split.startswith("test") and split not in used]
    named = {split: store.rows(split=split, labeled_for=data.attributes) for split in free}
    return {split: rows for split, rows in named.items() if len(rows)}
