"""A search space: config keys and the values each may take.

A key is dotted or nested; its values are a list or one of::

    [5, 10, 20]                  one of these (all of them with search.searcher=grid)
    {grid: [5, 10, 20]}          all of these, crossed with everything else
    {choice: [5, 10, 20]}        one of these
    {randint: [5, 60]}           an integer, 5 <= value < 60
    {uniform: [0.1, 2.0]}        a number between the two
    {loguniform: [0.05, 5.0]}    the same, uniform in the logarithm
    {quniform: [0.0, 0.5, 0.1]}  0.0, 0.1, 0.2 ... up to 0.5
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydec.config import Config, iterate_keys
from raydec.errors import UserError

Setting = dict[str, Any]
"""Dotted config key to value."""

# Significant digits of drawn numbers, so that a table shows the exact values.
_DIGITS = 4


@dataclass(frozen=True)
class Choice:
    """A list of values, of which one is drawn, or all are used if it is a ``grid``."""

    values: tuple[Any, ...]
    grid: bool = False

    def corners(self) -> tuple[Any, ...]:
        """Values to validate: if they are valid, so are all others."""
        return self.values

    def sample(self, rng: np.random.Generator) -> Any:
        """One of the values, all equally likely."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class IntRange:
    """Integers ``low <= value < high``."""

    low: int
    high: int

    def corners(self) -> tuple[Any, ...]:
        """Values to validate: if they are valid, so are all others."""
        return (self.low, self.high - 1) if self.high - self.low > 1 else (self.low,)

    def sample(self, rng: np.random.Generator) -> int:
        """An integer of the range, all equally likely."""
        return int(rng.integers(self.low, self.high))


@dataclass(frozen=True)
class FloatRange:
    """Numbers ``low <= value <= high``, uniform in the value or its logarithm, or in steps from ``low``."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def corners(self) -> tuple[Any, ...]:
        """Values to validate: if they are valid, so are all others."""
        return self.low, self._rounded(self._last())

    def sample(self, rng: np.random.Generator) -> float:
        """A number of the range, with four significant digits."""
        if self.step is not None:
            return self._rounded(self.low + self.step * int(rng.integers(self._num_steps() + 1)))
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = rng.uniform(self.low, self.high)
        return min(max(float(f"{drawn:.{_DIGITS}g}"), self.low), self.high)

    def _num_steps(self) -> int:
        assert self.step is not None
        # Rounded, because (0.5 - 0.0) / 0.1 may be slightly below 5.
        return math.floor(round((self.high - self.low) / self.step, 9))

    def _last(self) -> float:
        return self.high if self.step is None else self.low + self.step * self._num_steps()

    def _rounded(self, value: float) -> float:
        return float(f"{value:.12g}")


Domain = Choice | IntRange | FloatRange


def clip(domain: Domain, value: Any) -> Any:
    """The value of the domain that is nearest to a number; for a choice, the number unchanged."""
    if isinstance(domain, Choice):
        return value
    if isinstance(domain, IntRange):
        return min(max(round(value), domain.low), domain.high - 1)
    low, high = domain.corners()
    if domain.step is not None:
        value = low + domain.step * round((value - low) / domain.step)
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def parse_space(space: Mapping[str, Any], *, default_grid: bool = False) -> dict[str, Domain]:
    """Parse a space; if a key is given both dotted and nested, the later one is used.

    Args:
        space: the config's ``search.space``.
        default_grid: a plain list means all of its values.

    Raises:
        UserError: a key is unknown or cannot be searched, or its values are invalid.
    """
    known = {key for key, *_ in iterate_keys(Config)}
    return {key: _domain(key, node, default_grid) for key, node in _leaves(space, "", known, "search.space")}


def parse_variants(
    variants: Sequence[Mapping[str, Any] | Sequence[Mapping[str, Any]]],
) -> tuple[Setting, ...]:
    """Parse ``search.variants``: maps from config keys, dotted or nested, to single values.

    Lists of maps are crossed with each other; if two maps set the same key, that of the first list counts.

    Raises:
        UserError: a key is unknown or cannot be searched; a list is empty; or there are lists and maps.
    """
    known = {key for key, *_ in iterate_keys(Config)}
    maps = [variant for variant in variants if isinstance(variant, Mapping)]
    lists = [variant for variant in variants if not isinstance(variant, Mapping)]
    if maps and lists:
        raise UserError("search.variants has both maps and lists of maps: put every map into a list")
    if not all(lists):
        raise UserError("search.variants has an empty list: remove it, or name at least one map of keys")
    parsed = [[dict(_leaves(one, "", known, "search.variants")) for one in some] for some in lists or [maps]]
    crossed: list[Setting] = []
    for combination in itertools.product(*parsed):
        merged: Setting = {}
        for one in combination:
            merged |= {key: value for key, value in one.items() if key not in merged}
        if merged not in crossed:
            crossed.append(merged)
    return tuple(crossed)


def _leaves(node: Mapping[str, Any], prefix: str, known: set[str], where: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if key in known:
            _refuse_unsearchable(key, where)
            yield key, value
        elif isinstance(value, Mapping) and any(other.startswith(f"{key}.") for other in known):
            yield from _leaves(value, f"{key}.", known, where)
        else:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "python -m raydec.tune --help lists all keys"
            raise UserError(f"{where} has unknown key {key!r}; {hint}")


def _refuse_unsearchable(key: str, where: str) -> None:
    if key == "seed":
        raise UserError(f"{where}: seed cannot be searched; list several in search.seeds")
    if key == "data.store":
        raise UserError(f"{where}: data.store cannot be searched; run one search for each feature store")
    if key.startswith("ray.") or key in ("name", "output_dir", "storage_path"):
        raise UserError(f"{where}: {key} does not affect what a trial learns; set it outside search")


def _domain(key: str, node: Any, default_grid: bool) -> Domain:
    if isinstance(node, list | tuple):
        return _choice(key, node, grid=default_grid)
    if not isinstance(node, Mapping) or len(node) != 1 or next(iter(node)) not in _FORMS:
        given = ", ".join(map(str, node)) if isinstance(node, Mapping) else repr(node)
        raise UserError(
            f"search.space: {key} must be a list of values or exactly one of {', '.join(_FORMS)}, "
            f"not {given}; set a fixed value in the config itself"
        )
    ((form, arguments),) = node.items()
    if not isinstance(arguments, list | tuple):
        raise UserError(f"search.space: {key}: {form} takes a list, not {arguments!r}")
    return _FORMS[form](key, arguments)


def _choice(key: str, values: list[Any] | tuple[Any, ...], *, grid: bool) -> Choice:
    if not values:
        raise UserError(f"search.space: {key} has no values to choose from")
    if any(value in values[:index] for index, value in enumerate(values)):
        raise UserError(f"search.space: {key} lists a value twice: {', '.join(map(str, values))}")
    return Choice(tuple(values), grid)


def _numbers(key: str, form: str, arguments: Any, count: int, kind: type | tuple[type, ...]) -> list[Any]:
    well_formed = len(arguments) == count and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in arguments
    )
    if not well_formed:
        names = "[low, high, step]" if count == 3 else "[low, high]"
        raise UserError(f"search.space: {key}: {form} takes {names}, not {list(arguments)}")
    if not arguments[0] < arguments[1]:
        raise UserError(f"search.space: {key}: {form} {list(arguments)}: low must be less than high")
    return list(arguments)


def _randint(key: str, arguments: Any) -> IntRange:
    low, high = _numbers(key, "randint", arguments, 2, int)
    return IntRange(low, high)


def _uniform(key: str, arguments: Any) -> FloatRange:
    low, high = _numbers(key, "uniform", arguments, 2, (int, float))
    return FloatRange(float(low), float(high))


def _loguniform(key: str, arguments: Any) -> FloatRange:
    low, high = _numbers(key, "loguniform", arguments, 2, (int, float))
    if low <= 0:
        raise UserError(f"search.space: {key}: loguniform [{low}, {high}]: low must be greater than 0")
    return FloatRange(float(low), float(high), log=True)


def _quniform(key: str, arguments: Any) -> FloatRange:
    low, high, step = _numbers(key, "quniform", arguments, 3, (int, float))
    if not 0 < step <= high - low:
        raise UserError(f"search.space: {key}: quniform [{low}, {high}, {step}]: step must fit between them")
    return FloatRange(float(low), float(high), step=float(step))


_FORMS: dict[str, Callable[[str, Any], Domain]] = {
    "grid": lambda key, values: _choice(key, values, grid=True),
    "choice": lambda key, values: _choice(key, values, grid=False),
    "randint": _randint,
    "uniform": _uniform,
    "loguniform": _loguniform,
    "quniform": _quniform,
}
