"""Divides the labeled utterances of a store into folds, independently of its splits."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from raydec.config import FoldsConfig
from raydec.errors import UserError
from raydec.features.store import FeatureStore
from raydec.splits import UNLABELED_SPLIT

FEWEST_FOLDS = 3
"""One for test, one for choosing the epoch, one for training."""


def fold_names(store: FeatureStore, folds: FoldsConfig) -> tuple[str, ...]:
    """The names of the folds, in order.

    Raises:
        UserError: see :func:`divide`.
    """
    return tuple(sorted(set(_fold_of(store, folds).values())))


def divide(store: FeatureStore, folds: FoldsConfig) -> FeatureStore:
    """The store with folds instead of its splits; unlabeled utterances stay unlabeled.

    Utterances with the same value in the column are in the same fold. With ``k`` folds, values are assigned
    from the most to the least frequent, each to the fold with the fewest utterances. The result depends only
    on the store.

    Raises:
        UserError: the column does not exist, has an empty cell, or has fewer values than there are folds.
    """
    of_value = _fold_of(store, folds)
    splits = [
        UNLABELED_SPLIT if split == UNLABELED_SPLIT else of_value[str(value)]
        for split, value in _cells(store, folds.by)
    ]
    return store.with_columns({"split": pa.array(splits, pa.string())})


def _fold_of(store: FeatureStore, folds: FoldsConfig) -> dict[str, str]:
    """The fold of each value of the column."""
    labeled = [value for split, value in _cells(store, folds.by) if split != UNLABELED_SPLIT]
    num_empty = sum(value is None for value in labeled)
    if num_empty:
        raise UserError(
            f"folds by {folds.by}: {num_empty} utterances of {store.path} have no {folds.by}; fill in the "
            f"column, or give them the split {UNLABELED_SPLIT}, and prepare the corpus again"
        )
    counts = Counter(map(str, labeled))
    number = len(counts) if folds.k is None else folds.k
    if len(counts) < max(number, FEWEST_FOLDS):
        raise UserError(
            f"folds by {folds.by}: {store.path} has {len(counts)} different values, but "
            f"{max(number, FEWEST_FOLDS)} folds need as many; lower k, or divide by another column"
        )
    names = [f"fold{index:0{len(str(number - 1))}d}" for index in range(number)]
    if folds.k is None:
        return dict(zip(sorted(counts), names, strict=True))
    sizes = dict.fromkeys(names, 0)
    chosen = {}
    for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        chosen[value] = min(names, key=lambda name: (sizes[name], name))
        sizes[chosen[value]] += count
    return chosen


def _cells(store: FeatureStore, column: str) -> list[tuple[str, object]]:
    table: pa.Table = store.utterances
    if column not in table.column_names:
        raise UserError(
            f"folds by {column}: {store.path} has no such column; it has {', '.join(table.column_names)}"
        )
    return list(zip(table["split"].to_pylist(), table[column].to_pylist(), strict=True))
