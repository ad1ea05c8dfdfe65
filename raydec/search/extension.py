"""Extends a search by more samples, more seeds or a wider space; its trials so far are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from raydec.search.config import TuneConfig
from raydec.search.ledger import Entry
from raydec.search.plan import SearchPlan
from raydec.search.space import Choice, Domain, Setting, clip

_KEYS = ("search.num_samples", "search.seeds", "search.space", "search.variants")


def extends(earlier: TuneConfig, plan: SearchPlan, changed: Sequence[str], begun: Sequence[Entry]) -> bool:
    """Whether a search may continue with other settings: all its trials also belong to the new search.

    Args:
        earlier: its settings so far.
        plan: the search with the new settings.
        changed: dotted keys on which the two differ.
        begun: its trials so far.
    """
    before, now = earlier.search, plan.config.search
    if now.scheduler == "pbt" or not all(key.startswith(_KEYS) for key in changed):
        return False
    if now.num_samples < before.num_samples or now.seeds[: len(before.seeds)] != before.seeds:
        return False
    if plan.seeds_in_turn and now.seeds != before.seeds:
        return False  # a trial's score is the mean over its seeds
    return all(_belongs(entry.setting, plan) for entry in begun)


def numbered_settings(plan: SearchPlan, begun: Sequence[Entry]) -> list[tuple[int, Setting]]:
    """The settings to train and their numbers; started settings keep theirs, new ones get free ones.

    New settings are drawn until the search has its number of settings; a grid is trained completely.
    """
    if plan.config.search.scheduler == "pbt":
        return list(enumerate(plan.settings))
    taken = {_text(entry.setting): (entry.number, entry.setting) for entry in begun}
    new = [(place, setting) for place, setting in enumerate(plan.settings) if _text(setting) not in taken]
    if plan.config.search.searcher == "random":
        new = new[: max(0, len(plan.settings) - len(taken))]
    used = {number for number, _ in taken.values()}
    numbered = list(taken.values())
    for place, setting in new:
        number = place if place not in used else max(used) + 1
        used.add(number)
        numbered.append((number, setting))
    return sorted(numbered, key=lambda pair: pair[0])


def _belongs(setting: Mapping[str, Any], plan: SearchPlan) -> bool:
    return any(_fits(setting, variant, plan.domains) for variant in plan.variants)


def _fits(setting: Mapping[str, Any], variant: Setting, domains: Mapping[str, Domain]) -> bool:
    if set(setting) != set(variant) | set(domains):
        return False
    for key, value in setting.items():
        if key in variant:
            if _text(value) != _text(variant[key]):
                return False
        elif not _contains(domains[key], value):
            return False
    return True


def _contains(domain: Domain, value: Any) -> bool:
    if isinstance(domain, Choice):
        return any(_text(value) == _text(known) for known in domain.values)
    return clip(domain, value) == value


def _text(value: Any) -> str:
    """A text that is the same for a value and its copy from the ledger."""
    return json.dumps(value, sort_keys=True)
