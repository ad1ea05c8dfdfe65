"""Canonical names of splits, and config types for one or several of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from raydec.errors import UserError

UNLABELED_SPLIT = "unlabeled"
CANONICAL_SPLITS = ("train", "validation", "test", "test1", "test2", "test3", UNLABELED_SPLIT)

_ALIASES = {
    "training": "train",
    "development": "validation",
    "devel": "validation",
    "dev": "validation",
    "valid": "validation",
    "val": "validation",
    "testing": "test",
    "unlabelled": UNLABELED_SPLIT,
}
# Separates the names of pooled splits; not allowed in a name.
_JOINT = "+"


@functools.lru_cache(maxsize=1024)
def canonical_split(name: str) -> str:
    """The canonical spelling of a split name: ``Development`` is ``validation``, ``Test 1`` is ``test1``.

    Case and blanks are ignored. Other names are converted to lower case.

    Raises:
        UserError: the name contains characters other than letters, digits, ``_`` and ``-``.
    """
    folded = "".join(name.split()).casefold()
    plain = folded.replace("_", "").replace("-", "")
    if plain in CANONICAL_SPLITS:
        return plain
    if plain in _ALIASES:
        return _ALIASES[plain]
    if not re.fullmatch(r"[a-z0-9_-]+", folded):
        raise UserError(
            f"split name {name!r} may only contain letters, digits, '_' and '-'; "
            "use for example Train, Validation, Test or unlabeled"
        )
    return folded


def joint_name(splits: Sequence[str]) -> str:
    """The name of several pooled splits: ``fold0+fold1``."""
    return _JOINT.join(splits)


def parts_of(name: str) -> tuple[str, ...]:
    """The splits of a :func:`joint_name`."""
    return tuple(name.split(_JOINT))


def _read(value: Any) -> Any:
    if value is None:
        return None
    names = value if isinstance(value, list | tuple) else [value]
    if not names:
        raise ValueError("the list is empty; name at least one split")
    try:
        # YAML parses `data.test_split=3` as a number.
        return tuple(dict.fromkeys(canonical_split(_spelled(name)) for name in names))
    except UserError as error:
        raise ValueError(str(error)) from None


def _spelled(name: Any) -> str:
    if isinstance(name, str):
        return name
    if isinstance(name, bool) or not isinstance(name, int):
        raise ValueError("must be the name of a split, or a list of names")
    return str(name)


def _written(names: tuple[str, ...] | None) -> Any:
    return names[0] if names is not None and len(names) == 1 else names


Splits = Annotated[tuple[str, ...], BeforeValidator(_read), PlainSerializer(_written)]
"""One or several splits, canonical and without duplicates; a single one is read and written as plain text."""

OptionalSplits = Annotated[tuple[str, ...] | None, BeforeValidator(_read), PlainSerializer(_written)]
"""Like :data:`Splits`, or unset."""
