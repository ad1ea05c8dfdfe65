"""Chooses the splits of a store on which a model is scored."""

from __future__ import annotations

from collections.abc import Sequence

from raydec.config import ATTRIBUTES
from raydec.errors import UserError
from raydec.features.store import FeatureStore
from raydec.model.outputs import Outputs
from raydec.splits import canonical_split


def choose_splits(
    store: FeatureStore, outputs: Outputs, names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The splits to evaluate, canonical and without duplicates.

    Args:
        store: the feature store.
        outputs: the outputs of the model.
        names: in any spelling; default: every split named ``test*`` that has labels, else ``validation``.

    Raises:
        UserError: a split is missing or has no label for any of the outputs.
    """
    usable = [name for name in store.splits if len(outputs.labeled_rows(store, name))]
    if names is None:
        tests = tuple(name for name in usable if name.startswith("test"))
        if not tests and "validation" not in usable:
            raise UserError(
                f"{store.path} has no test or validation split with labels for {outputs.label}; "
                f"{_what_is_labeled(store)}; name a split with --split"
            )
        return tests or ("validation",)
    chosen = tuple(dict.fromkeys(canonical_split(name) for name in names))
    for name in chosen:
        if name not in store.splits:
            raise UserError(f"{store.path} has no split {name!r}; its splits are {', '.join(store.splits)}")
        if name not in usable:
            raise UserError(
                f"split {name!r} of {store.path} has no labels for what the model predicts "
                f"({outputs.label}); {_what_is_labeled(store)}"
            )
    return chosen


def _what_is_labeled(store: FeatureStore) -> str:
    """The labels that a store has, for a message."""
    found = []
    for split in store.splits:
        table = store.utterances.take(store.rows(split))
        labeled = [name for name in (*ATTRIBUTES, "emotion") if table[name].null_count < len(table)]
        if labeled:
            found.append(f"{split} ({', '.join(labeled)})")
    return "labeled splits are " + ", ".join(found) if found else "no split has labels"
