"""Select the utterances of a run by their rows in the store, without reading frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydec.config import Config
from raydec.errors import UserError
from raydec.features.store import FeatureStore
from raydec.features.store_cache import local_store
from raydec.features.store_view import view
from raydec.learning.recipes import fill_recipe
from raydec.learning.targets.registry import Targets, make_targets
from raydec.splits import UNLABELED_SPLIT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SelectedRows:
    """Rows of the store by their use, and the targets of their labels."""

    labeled: np.ndarray
    """int64 ``[utterance]``, as the other rows."""
    unlabeled: np.ndarray
    validation: np.ndarray
    tests: dict[str, np.ndarray]
    targets: Targets


def open_store(config: Config) -> FeatureStore:
    """Open a resolved config's store, fetched if it is remote, with the view that the config selects.

    Raises:
        UserError: see :func:`local_store`, :meth:`FeatureStore.open` and
            :func:`raydec.features.store_view.view`.
    """
    assert config.data.store is not None
    return view(FeatureStore.open(local_store(config.data.store)), config.data)


def check_data(config: Config) -> Config:
    """Check that a resolved config's store opens and has the data that the config needs.

    Raises:
        UserError: see :func:`open_store`, :func:`select_rows`, and
            :meth:`~raydec.features.front_end.FrontEnd.check_model` and
            :meth:`~raydec.features.front_end.FrontEnd.chunk_format` of the front end.

    Returns:
        The config, with unset keys filled in by the recipe and the store's front end.
    """
    store = open_store(config)
    store.front_end.check_model(config.model)
    rows = select_rows(config, store)
    for problem in _uninformative(config, store.utterances.take(rows.validation)):
        logger.warning(
            "data.validation_split=%s: %s; its score is meaningless and cannot choose the best epoch, name "
            "another split",
            config.data.validation_name,
            problem,
        )
    return _decided(config, store, len(rows.labeled))


def filled(config: Config, store: FeatureStore) -> Config:
    """The config, with unset keys filled in by the recipe and the store's front end.

    Raises:
        UserError: see :func:`check_data`.
    """
    return _decided(config, store, len(select_rows(config, store).labeled))


def _decided(config: Config, store: FeatureStore, num_labeled: int) -> Config:
    decided = fill_recipe(config, num_labeled, store.front_end.scales)
    return decided.model_copy(update={"features": store.front_end.resolve(decided.features)})


def _uninformative(config: Config, table: pa.Table) -> list[str]:
    """Problems of validation labels for which no CCC can be computed."""
    problems = []
    for attribute in config.data.attributes:
        values = table[attribute].drop_null()
        if len(values) < 2:
            problems.append(f"{attribute} is labeled in {len(values)} of {len(table)} utterances")
        elif pc.count_distinct(values).as_py() == 1:
            problems.append(f"every {attribute} label is {values[0].as_py():g}")
    return problems


def select_rows(config: Config, store: FeatureStore) -> SelectedRows:
    """Pick the labeled, unlabeled, validation and test utterances that a config selects.

    An utterance of the training splits without a label for any target joins the unlabeled pool. Statistics
    are those of the labeled utterances, whatever their splits are called.

    Raises:
        UserError: a split is missing or has no labels, or fewer unlabeled utterances than requested.
    """
    data = config.data
    train_rows = store.rows(split=data.train_split)
    targets = make_targets(config, store, train_rows)
    labeled = _labeled_rows(store, data.train_split, targets, "data.train_split")
    validation = _labeled_rows(store, data.validation_split, targets, "data.validation_split")
    pool = np.union1d(np.setdiff1d(train_rows, labeled), store.rows(split=UNLABELED_SPLIT))
    unlabeled = _unlabeled_rows(config, pool)
    return SelectedRows(labeled, unlabeled, validation, _test_rows(config, store, targets), targets)


def _labeled_rows(store: FeatureStore, splits: Sequence[str], targets: Targets, key: str) -> np.ndarray:
    """Labeled rows of some splits, in the store's order; every split must have at least one."""
    for split in splits:
        if not len(targets.outputs.labeled_rows(store, [split])):
            raise UserError(
                f"{key}={split}: store {store.path} has no utterance of that split labeled for "
                f"{targets.outputs.label}; its splits are {', '.join(store.splits)}"
            )
    return targets.outputs.labeled_rows(store, splits)


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


def _test_rows(config: Config, store: FeatureStore, targets: Targets) -> dict[str, np.ndarray]:
    """Rows of each test split; if unset, of every labeled split named ``test*`` without another use."""
    data = config.data
    if data.test_split is not None:
        return {split: _labeled_rows(store, [split], targets, "data.test_split") for split in data.test_split}
    used = (*data.train_split, *data.validation_split)
    free = [split for split in store.splits if split.startswith("test") and split not in used]
    named = {split: targets.outputs.labeled_rows(store, [split]) for split in free}
    return {split: rows for split, rows in named.items() if len(rows)}
