"""Optuna's tree-structured Parzen estimator over a search space, initialised with all earlier results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from raydec.search.space import Choice, Domain, IntRange, Setting

# After this many consecutive proposals of known settings, the space is considered exhausted.
_PATIENCE = 100
_VARIANT = "variant"


class Tpe:
    """Proposes settings and learns from their scores.

    Args:
        domains: searched key to its values.
        variants: maps of keys to values set together, at least one.
        mode: whether a large or a small score is good.
        seed: seed of the sampler.
    """

    def __init__(
        self,
        domains: Mapping[str, Domain],
        variants: Sequence[Setting],
        mode: Literal["max", "min"],
        seed: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._domains = dict(domains)
        self._variants = list(variants)
        self._distributions = {key: _distribution(domain) for key, domain in self._domains.items()}
        if len(self._variants) > 1:
            self._distributions[_VARIANT] = CategoricalDistribution(range(len(self._variants)))
        # Trials run in parallel: without constant_liar their proposals would be too similar.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(
            sampler=sampler, direction="maximize" if mode == "max" else "minimize"
        )
        self._asked: dict[int, optuna.Trial] = {}
        self._known: list[tuple[Setting, float | None]] = []

    def learn(self, setting: Setting, score: float) -> None:
        """Add a setting that was trained earlier, with its score."""
        parameters = self._parameters(setting)
        self._known.append((setting, score))
        if parameters is not None:
            self._study.add_trial(
                optuna.trial.create_trial(params=parameters, distributions=self._distributions, value=score)
            )

    def ask(self, number: int) -> Setting | None:
        """Propose a setting that is not being trained and was not trained before; None if there is none left.

        Args:
            number: identifies the setting in :meth:`tell`.
        """
        for _ in range(_PATIENCE):
            proposal = self._study.ask(fixed_distributions=self._distributions)
            setting = self._setting(proposal.params)
            known = [score for other, score in self._known if other == setting]
            if not known:
                self._asked[number] = proposal
                self._known.append((setting, None))
                return setting
            # Optuna requires a result for every proposal, even for a known setting.
            if known[0] is None:
                self._study.tell(proposal, state=TrialState.FAIL)
            else:
                self._study.tell(proposal, known[0])
        return None

    def resume(self, number: int, setting: Setting) -> None:
        """Register a setting of an interrupted trial as being trained."""
        self._known.append((setting, None))
        parameters = self._parameters(setting)
        if parameters is not None:
            self._study.enqueue_trial(parameters)
            self._asked[number] = self._study.ask(fixed_distributions=self._distributions)

    def tell(self, number: int, score: float | None) -> None:
        """Record the score of a trial that ended; None if it has no score."""
        proposal = self._asked.pop(number, None)
        if proposal is None:
            return
        if score is None:
            self._study.tell(proposal, state=TrialState.FAIL)
            return
        self._study.tell(proposal, score)
        setting = self._setting(proposal.params)
        self._known = [
            (other, score if other == setting and known is None else known) for other, known in self._known
        ]

    def _setting(self, parameters: Mapping[str, Any]) -> Setting:
        variant = self._variants[parameters.get(_VARIANT, 0)]
        values = {key: _value(domain, parameters[key]) for key, domain in self._domains.items()}
        return {**variant, **values, **variant}

    def _parameters(self, setting: Setting) -> dict[str, Any] | None:
        """The sampler's parameters for a setting; None if it lies outside the space."""
        parameters: dict[str, Any] = {}
        fitting = [i for i, variant in enumerate(self._variants) if variant.items() <= setting.items()]
        if not fitting or any(key not in setting for key in self._domains):
            return None
        if len(self._variants) > 1:
            parameters[_VARIANT] = fitting[0]
        for key, domain in self._domains.items():
            # A variant overrides the sampler's value, so any value will do.
            value = domain.corners()[0] if key in self._variants[fitting[0]] else setting[key]
            if isinstance(domain, Choice):
                if value not in domain.values:
                    return None
                value = domain.values.index(value)
            parameters[key] = value
        return parameters


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        # By index, because Optuna does not accept lists as values.
        return CategoricalDistribution(range(len(domain.values)))
    if isinstance(domain, IntRange):
        return IntDistribution(domain.low, domain.high - 1)
    if domain.step is not None:
        return FloatDistribution(domain.low, domain.corners()[1], step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _value(domain: Domain, parameter: Any) -> Any:
    return domain.values[parameter] if isinstance(domain, Choice) else parameter
