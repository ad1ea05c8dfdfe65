"""Optuna's tree-structured Parzen estimator over a search space, told of everything that is known already."""

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

# How often a setting that was trained before may be proposed in a row before the space counts as used up.
_PATIENCE = 100
_VARIANT = "variant"


class Tpe:
    """Proposes settings and learns from their scores.

    Args:
        domains: searched key to its values.
        variants: maps of keys that go together, at least one.
        mode: whether a large or a small score is good.
        seed: of the sampler.
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
        # Trials run side by side: without constant_liar their proposals would crowd on one spot.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(
            sampler=sampler, direction="maximize" if mode == "max" else "minimize"
        )
        self._asked: dict[int, optuna.Trial] = {}
        self._known: list[tuple[Setting, float | None]] = []

    def learn(self, setting: Setting, score: float) -> None:
        """Take in a setting that was trained earlier."""
        parameters = self._parameters(setting)
        self._known.append((setting, score))
        if parameters is not None:
            self._study.add_trial(
                optuna.trial.create_trial(params=parameters, distributions=self._distributions, value=score)
            )

    def ask(self, number: int) -> Setting | None:
        """A setting that is not being trained and was not trained before; None when there is none left.

        Args:
            number: what :meth:`tell` will call it.
        """
        for _ in range(_PATIENCE):
            proposal = self._study.ask(fixed_distributions=self._distributions)
            setting = self._setting(proposal.params)
            known = [score for other, score in self._known if other == setting]
            if not known:
                self._asked[number] = proposal
                self._known.append((setting, None))
                return setting
            # Its score is news to no one, but the sampler has to hear some end of what it began.
            if known[0] is None:
                self._study.tell(proposal, state=TrialState.FAIL)
            else:
                self._study.tell(proposal, known[0])
        return None

    def resume(self, number: int, setting: Setting) -> None:
        """Count a setting, begun earlier, as being trained."""
        self._known.append((setting, None))
        parameters = self._parameters(setting)
        if parameters is not None:
            self._study.enqueue_trial(parameters)
            self._asked[number] = self._study.ask(fixed_distributions=self._distributions)

    def tell(self, number: int, score: float | None) -> None:
        """A trial ended with this score, or without any."""
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
        """The sampler's words for a setting; None when it lies outside the space."""
        parameters: dict[str, Any] = {}
        fitting = [i for i, variant in enumerate(self._variants) if variant.items() <= setting.items()]
        if not fitting or any(key not in setting for key in self._domains):
            return None
        if len(self._variants) > 1:
            parameters[_VARIANT] = fitting[0]
        for key, domain in self._domains.items():
            # Where the variant has the last word, the sampler's own is lost; any will do.
            value = domain.corners()[0] if key in self._variants[fitting[0]] else setting[key]
            if isinstance(domain, Choice):
                if value not in domain.values:
                    return None
                value = domain.values.index(value)
            parameters[key] = value
        return parameters


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        # By position: values may be lists, which Optuna does not take.
        return CategoricalDistribution(range(len(domain.values)))
    if isinstance(domain, IntRange):
        return IntDistribution(domain.low, domain.high - 1)
    if domain.step is not None:
        return FloatDistribution(domain.low, domain.corners()[1], step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _value(domain: Domain, parameter: Any) -> Any:
    return domain.values[parameter] if isinstance(domain, Choice) else parameter
