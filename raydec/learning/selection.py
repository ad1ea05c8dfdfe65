"""Which utterances of a store play which part in a run: their rows, before any frame is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raydec.config import Config
from raydec.corpus.table import UNLABELED_SPLIT, canonical_split
from raydec.errors import UserError
from raydec.features.store import FeatureStore
from raydec.features.store_cache import local_store


@dataclass(frozen=True)
class SelectedRows:
    """Rows of the store by their part, and the scale of the labels."""

    labeled: np.ndarray
    """int64 ``[utterance]``, as the other rows."""
    unlabeled: np.ndarray
    validation: np.ndarray
    tests: dict[str, np.ndarray]
    label_mean: np.ndarray
    """float64 ``[attribute]``, of the labeled training split."""
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

    An utterance of the training split with none of the chosen attributes labeled joins the unlabeled pool.

    Raises:
        UserError: a split is missing or has no labels, or fewer unlabeled utterances than asked for.
    """
    attributes = config.data.attributes
    train_split = canonical_split(config.data.train_split)
    labeled = _labeled_rows(store, train_split, attributes, "data.train_split")
    validation = _labeled_rows(
        store, canonical_split(config.data.validation_split), attributes, "data.validation_split"
    )
    pool = np.union1d(np.setdiff1d(store.rows(split=train_split), labeled), store.rows(split=UNLABELED_SPLIT))
    unlabeled = _unlabeled_rows(config, pool)
    means, stds = _label_scale(store, attributes)
    return SelectedRows(labeled, unlabeled, validation, _test_rows(config, store), means, stds)


def _labeled_rows(store: FeatureStore, split: str, attributes: tuple[str, ...], key: str) -> np.ndarray:
    rows = store.rows(split=split, labeled_for=attributes)
    if not len(rows):
        raise UserError(
            f"{key}={split}: store {store.path} has no utterance of that split labeled for "
            f"{', '.join(attributes)}; its splits are {', '.join(store.splits)}"
        )
    return rows


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


def _label_scale(store: FeatureStore, attributes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    missing = [attribute for attribute in attributes if attribute not in store.label_stats]
    if missing:
        raise UserError(
            f"data.attributes: no training utterance of {store.path} is labeled for {', '.join(missing)}; "
            "drop it"
        )
    stats = [store.label_stats[attribute] for attribute in attributes]
    constant = [name for name, s in zip(attributes, stats, strict=True) if not s.std > 0]
    if constant:
        raise UserError(
            f"data.attributes: the training labels of {', '.join(constant)} are all equal; drop it"
        )
    return np.array([s.mean for s in stats]), np.array([s.std for s in stats])


def _test_rows(config: Config, store: FeatureStore) -> dict[str, np.ndarray]:
    attributes = config.data.attributes
    if config.data.test_split is not None:
        split = canonical_split(config.data.test_split)
        return {split: _labeled_rows(store, split, attributes, "data.test_split")}
    named = {split: store.rows(split=split, labeled_for=attributes) for split in store.splits}
    return {split: rows for split, rows in named.items() if split.startswith("test") and len(rows)}
