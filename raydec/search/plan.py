"""Derives from a search's config the settings to train, and validates them."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from raydec.config import Config, DataConfig, config_from_dict
from raydec.errors import UserError
from raydec.search.config import DEFAULT_SPACE, TuneConfig
from raydec.search.folds import with_fold
from raydec.search.metrics import known_metrics
from raydec.search.space import Choice, Domain, Setting, parse_space, parse_variants

# With more combinations of extreme values than this, each key is checked separately.
_MAX_CORNERS = 512
# A finite space may have no new settings left; number of draws per sample before giving up.
_DRAWS_PER_SAMPLE = 50

# Keys that population based training may change when a run continues from another's checkpoint: the loss, and
# settings that the optimiser reads from the config at every step. All others are part of the checkpoint.
_LIVE_KEYS = ("loss.",)
_LIVE_KEYS_MODERN = (*_LIVE_KEYS, "training.learning_rate", "training.gradient_clip")


@dataclass(frozen=True)
class SearchPlan:
    """A validated search.

    Attributes:
        config: its settings.
        domains: searched key to its values.
        variants: maps of keys to values set together, at least one (which may be empty).
        settings: settings to train for grid, random and pbt; empty for optuna, which draws them later.
        folds: names of the folds of a cross-validation, else empty.
        representatives: run configs that span the space; if they are valid, so is every trial.
    """

    config: TuneConfig
    domains: dict[str, Domain]
    variants: tuple[Setting, ...]
    settings: tuple[Setting, ...]
    representatives: tuple[Config, ...]
    folds: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that differs between settings, variants' first."""
        of_variants = dict.fromkeys(key for variant in self.variants for key in variant)
        return (*of_variants, *(key for key in self.domains if key not in of_variants))

    @property
    def num_settings(self) -> int:
        """Maximal number of settings that will be trained."""
        return len(self.settings) or self.config.search.num_samples

    @property
    def seeds_in_turn(self) -> bool:
        """Whether one trial trains all seeds of its setting, so that the searcher gets their mean."""
        return self.config.search.searcher == "optuna"

    @property
    def num_trials(self) -> int:
        """Maximal number of trials of the whole search."""
        runs = len(self.config.search.seeds) * max(1, len(self.folds))
        return self.num_settings * (1 if self.seeds_in_turn else runs)

    @property
    def run_configs(self) -> Iterator[Config]:
        """The representative configs, each with every fold."""
        for config in self.representatives:
            yield from (self.with_fold(config, fold) for fold in self.folds or (None,))

    def with_fold(self, config: Config, fold: str | None) -> Config:
        """The config of a run that tests a fold; unchanged without folds."""
        folds = self.config.search.folds
        return config if fold is None or folds is None else with_fold(config, folds, self.folds, fold)


def plan_search(config: TuneConfig, folds: Sequence[str] = ()) -> SearchPlan:
    """Derive the settings to train and validate them.

    Raises:
        UserError: a key, value, metric or combination is invalid.
    """
    search = config.search
    _check_combination(config)
    given = search.space
    space = given if given is not None else ({} if search.variants else DEFAULT_SPACE)
    domains = parse_space(space, default_grid=search.searcher == "grid")
    variants = parse_variants(search.variants) or ({},)
    if not domains and not search.variants:
        raise UserError("search.space is empty: name at least one key, for example loss.cluster_weight")
    _check_searcher(config, domains)
    representatives = tuple(_representatives(config, domains, variants))
    _check_metric(search.metric, representatives)
    settings = () if search.searcher == "optuna" else tuple(_enumerate(config, domains, variants))
    for setting in settings:
        apply_setting(config, setting)
    return SearchPlan(config, domains, variants, settings, representatives, tuple(folds))


def apply_setting(config: Config, setting: Mapping[str, Any]) -> Config:
    """The run config of one setting: the search's config without ``search``, with these keys changed.

    Raises:
        UserError: a value is out of range.
    """
    tree = config.model_dump(mode="json")
    tree.pop("search", None)
    for key, value in setting.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[name] = copy.deepcopy(value)
    try:
        return Config.model_validate(tree)
    except ValidationError:
        # Slower, but with a readable message.
        try:
            return config_from_dict(tree)
        except UserError as error:
            raise UserError(f"search.space leads to {error}") from None


def _check_combination(config: TuneConfig) -> None:
    search = config.search
    if len(set(search.seeds)) != len(search.seeds):
        raise UserError(f"search.seeds lists a seed twice: {', '.join(map(str, search.seeds))}")
    if search.scheduler == "asha" and search.grace_epochs >= config.training.epochs:
        raise UserError(
            f"search.scheduler=asha with search.grace_epochs={search.grace_epochs} could not stop any trial "
            f"in training.epochs={config.training.epochs}; lower search.grace_epochs or use scheduler=none"
        )
    if search.scheduler == "pbt":
        _check_population(config)
    if search.folds is not None:
        _check_folds(config)


def _check_folds(config: TuneConfig) -> None:
    if config.search.scheduler != "none":
        raise UserError(
            f"search.folds needs search.scheduler=none, because {config.search.scheduler} may omit folds"
        )
    given = config.data
    default = DataConfig()
    for key in ("train_split", "validation_split", "test_split", "folds"):
        if getattr(given, key) != getattr(default, key):
            raise UserError(f"search.folds sets data.{key} in each run; leave data.{key} unset")


def _check_population(config: TuneConfig) -> None:
    search = config.search
    problems = {
        "needs search.searcher=random": search.searcher != "random",
        "does not support search.variants": bool(search.variants),
        "needs a single seed in search.seeds": len(search.seeds) > 1,
        "needs search.num_samples of at least 2": search.num_samples < 2,
        "exchanges checkpoints as files: leave storage_path unset or give a folder": "://"
        in (config.storage_path or ""),
    }
    for problem, holds in problems.items():
        if holds:
            raise UserError(f"search.scheduler=pbt {problem}")


def _check_searcher(config: TuneConfig, domains: Mapping[str, Domain]) -> None:
    search = config.search
    for key, domain in domains.items():
        if search.searcher == "grid" and not isinstance(domain, Choice):
            raise UserError(f"search.searcher=grid needs lists of values, but {key} is a range; use random")
        if search.searcher == "optuna" and isinstance(domain, Choice) and domain.grid:
            raise UserError(f"search.searcher=optuna draws from {key}: write choice instead of grid")
        if search.scheduler == "pbt":
            _check_live(key, domain, config)


def _check_live(key: str, domain: Domain, config: TuneConfig) -> None:
    live = _LIVE_KEYS_MODERN if config.training.recipe == "modern" else _LIVE_KEYS
    if not key.startswith(live):
        raise UserError(
            f"search.scheduler=pbt cannot change {key} during training; with training.recipe="
            f"{config.training.recipe} it can change {', '.join(live).replace('loss.', 'loss.*')}"
        )
    if isinstance(domain, Choice) and domain.grid:
        raise UserError(f"search.scheduler=pbt draws from {key}: write choice instead of grid")


def _check_metric(metric: str, representatives: Sequence[Config]) -> None:
    for config in representatives:
        known = known_metrics(config)
        if metric not in known:
            clusters = config.model.kind == "deepemocluster"
            which = "" if clusters else f" of model.kind={config.model.kind}"
            raise UserError(
                f"search.metric={metric} is not a key of metrics.jsonl{which}; "
                f"known: {', '.join(sorted(known))}"
            )


def _representatives(
    config: TuneConfig, domains: Mapping[str, Domain], variants: Sequence[Setting]
) -> Iterator[Config]:
    for variant in variants:
        corners = {key: domain.corners() for key, domain in domains.items() if key not in variant}
        for setting in _spanning(corners):
            yield apply_setting(config, {**setting, **variant})


def _spanning(corners: Mapping[str, tuple[Any, ...]]) -> Iterator[Setting]:
    """All combinations of extreme values; if there are too many, change one value at a time."""
    if math.prod(len(values) for values in corners.values()) <= _MAX_CORNERS:
        yield from _product(corners)
        return
    first = {key: values[0] for key, values in corners.items()}
    yield first
    for key, values in corners.items():
        for value in values[1:]:
            yield {**first, key: value}


def _product(values: Mapping[str, Iterable[Any]]) -> Iterator[Setting]:
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _enumerate(
    config: TuneConfig, domains: Mapping[str, Domain], variants: Sequence[Setting]
) -> list[Setting]:
    """Cross the grid keys, the draws of the other keys, and the variants, without duplicates."""
    grid = {
        key: domain.values for key, domain in domains.items() if isinstance(domain, Choice) and domain.grid
    }
    drawn = {key: domain for key, domain in domains.items() if key not in grid}
    draws = _draw(drawn, config) if drawn else [{}]
    settings: list[Setting] = []
    for variant, draw, cell in itertools.product(variants, draws, _product(grid)):
        # Keys in the order of the space; a variant overrides the space.
        merged = {**variant, **{key: {**cell, **draw}[key] for key in domains}, **variant}
        if merged not in settings or config.search.scheduler == "pbt":
            settings.append(merged)
    return settings


def _draw(domains: Mapping[str, Domain], config: TuneConfig) -> list[Setting]:
    rng = np.random.default_rng(config.seed)
    draws: list[Setting] = []
    population = config.search.scheduler == "pbt"
    for _ in range(config.search.num_samples * _DRAWS_PER_SAMPLE):
        draw = {key: domain.sample(rng) for key, domain in domains.items()}
        if population or draw not in draws:
            draws.append(draw)
        if len(draws) == config.search.num_samples:
            break
    return draws
