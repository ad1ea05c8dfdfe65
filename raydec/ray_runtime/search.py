"""Runs the trials of a search under Ray Tune, each a data-parallel Ray Train run of its own.

Tune schedules and stops trials, but its state is not used for resuming. Training results are in the run
directories and decisions in the ledger. To resume a killed search, a new Tune run trains the remaining
trials, and its searcher and scheduler are initialised with the earlier results. (``Tuner.restore`` would use
a snapshot that may be ten seconds old, and a scheduler without the earlier trials.)

A trial's driver reserves no CPU; its training workers do. Otherwise drivers could take all cores and wait
forever for workers that need one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from raydec.config import Config
from raydec.placement import Node, Placement
from raydec.ray_runtime.session import cluster_nodes
from raydec.ray_runtime.shared_storage import check_shared
from raydec.ray_runtime.trial import drive, named_trial
from raydec.search.events import SearchEvents
from raydec.search.ledger import Entry, Ledger, State
from raydec.search.plan import SearchPlan
from raydec.search.space import Choice, Domain, FloatRange, IntRange, clip
from raydec.search.tpe import Tpe
from raydec.search.trial_job import Remaining, TrialJob
from raydec.verbosity import silenced

_TRIAL, _SETTING = "trial", "setting"
_HEAD_NODE, _HEAD_SHARE = "node:__internal_head__", 0.001


class TuneRunner:
    """Ray Tune on the running cluster, as :class:`raydec.search.run.SearchRunner`."""

    def nodes(self) -> list[Node]:
        """The machines of the cluster."""
        return cluster_nodes()

    def check_shared(self, config: Config, location: str) -> None:
        """See :func:`raydec.ray_runtime.shared_storage.check_shared`."""
        check_shared(config, location)

    def run_trials(self, *arguments: Any) -> None:
        """See :func:`run_trials`."""
        run_trials(*arguments)


def run_trials(
    plan: SearchPlan,
    job: TrialJob,
    remaining: Remaining,
    ledger: Ledger,
    events: SearchEvents,
    tune_folder: str,
) -> None:
    """See :meth:`raydec.search.run.SearchRunner.run_trials`; Ray must be running."""
    share = job.share
    searcher = _searcher(plan, remaining, ledger) if plan.seeds_in_turn else None
    space = {} if searcher else {_TRIAL: tune.grid_search([_spec(entry) for entry in remaining.entries])}
    storage, _, name = tune_folder.rpartition("/")
    scheduler = plan.config.search.scheduler
    pbt = scheduler == "pbt"
    with _quiet():
        tune.Tuner(
            tune.with_resources(partial(_run_trial, job), _driver_resources(share, pbt)),
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=len(remaining.entries) + remaining.num_new if searcher else 1,
                max_concurrent_trials=None if pbt else share.max_concurrent,
                search_alg=searcher,
                scheduler=_scheduler(plan, remaining),
                trial_name_creator=_name,
                trial_dirname_creator=str,
                # Reusing a process saves seconds of imports, but is possible only if every trial runs to the
                # end: the training of a stopped trial continues in its process.
                reuse_actors=scheduler == "none",
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=plan.config.search.max_retries),
                callbacks=[_Listener(ledger, events)],
                verbose=0,
            ),
        ).fit()


def _name(trial: Any) -> str:
    """Name of a new trial; Tune calls this once per trial."""
    return _entry(trial.config[_TRIAL]).key


def _entry(spec: Mapping[str, Any]) -> Entry:
    return Entry(spec["number"], dict(spec[_SETTING]), tuple(spec["seeds"]), folds=tuple(spec["folds"]))


def _entry_of(trial: Any) -> Entry:
    return _entry(named_trial(trial.config[_TRIAL], str(trial)))


def _run_trial(job: TrialJob, config: dict[str, Any]) -> None:
    drive(job, config[_TRIAL])


def _driver_resources(share: Placement, pbt: bool) -> dict[str, float]:
    """Resources that Tune reserves for a driver; its workers reserve their own."""
    if share.num_workers == 0:
        gpus = {"GPU": round(share.worker_gpus + share.actor_gpus, 4)} if share.use_gpu else {}
        return {"CPU": float(share.cpus_per_worker), **gpus}
    if pbt:
        # The scheduler alternates between more trials than fit; only resources limit how many run at once.
        return {_HEAD_NODE: int(1e4 / share.max_concurrent) / 1e4}
    return {_HEAD_NODE: _HEAD_SHARE}


def _spec(entry: Entry) -> dict[str, Any]:
    lists = {"seeds": list(entry.seeds), "folds": list(entry.folds)}
    return {"number": entry.number, _SETTING: dict(entry.setting), **lists}


def _scheduler(plan: SearchPlan, remaining: Remaining) -> TrialScheduler:
    search = plan.config.search
    if search.scheduler == "asha":
        return _asha(plan, remaining)
    if search.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr="epoch",
            # Not the best epoch's score, so that a trial that got worse is replaced.
            metric="latest",
            mode=search.mode,
            perturbation_interval=search.grace_epochs,
            hyperparam_mutations={
                _TRIAL: {_SETTING: {key: _mutation(domain) for key, domain in plan.domains.items()}}
            },
            custom_explore_fn=_Clip(plan.domains),
            log_config=False,
            require_attrs=False,
        )
    return FIFOScheduler()


def _asha(plan: SearchPlan, remaining: Remaining) -> TrialScheduler:
    """ASHA, initialised with the results of trials of earlier attempts."""
    search = plan.config.search
    in_turn = len(search.seeds) if plan.seeds_in_turn else 1  # ASHA does not go with folds
    longest = max(config.training.epochs for config in plan.representatives) * in_turn
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric="score",
        mode=search.mode,
        # One less than the last epoch, because ASHA stops trials at max_t, and a trial that completes must
        # still test and save its model.
        max_t=max(longest - 1, search.grace_epochs),
        grace_period=search.grace_epochs,
        reduction_factor=search.reduction_factor,
        stop_last_trials=False,
    )
    no_controller: Any = None
    for entry, curve in remaining.past:
        if curve:
            trial: Any = SimpleNamespace(trial_id=f"past-{entry.key}")
            scheduler.on_trial_add(no_controller, trial)
            results = [{"epoch": epoch, "score": score} for epoch, score in curve]
            for result in results:
                scheduler.on_trial_result(no_controller, trial, result)
            scheduler.on_trial_complete(no_controller, trial, results[-1])
    return scheduler


def _mutation(domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return list(domain.values)
    if isinstance(domain, IntRange):
        return tune.randint(domain.low, domain.high)
    assert isinstance(domain, FloatRange)
    return (tune.loguniform if domain.log else tune.uniform)(domain.low, domain.high)


class _Clip:
    """Clips a perturbed setting to the space, because perturbing multiplies values without limits."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self._domains = dict(domains)

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        setting = config[_TRIAL][_SETTING]
        for key, domain in self._domains.items():
            setting[key] = clip(domain, setting[key])
        return config


def _searcher(plan: SearchPlan, remaining: Remaining, ledger: Ledger) -> Searcher:
    search = plan.config.search
    # A different seed after an interruption, because the same seed would repeat its proposals.
    tpe = Tpe(plan.domains, plan.variants, search.mode, plan.config.seed + len(ledger.entries()))
    for entry, curve in remaining.past:
        if curve:
            tpe.learn(entry.setting, curve[-1][1])
    for entry in remaining.entries:
        tpe.resume(entry.number, entry.setting)
    first_free = 1 + max((entry.number for entry in ledger.entries()), default=-1)
    return _TpeSearcher(tpe, remaining.entries, first_free, search.seeds, plan.folds)


class _TpeSearcher(Searcher):
    """Suggests trials that have started earlier, then proposals of the estimator."""

    def __init__(
        self,
        tpe: Tpe,
        begun: Sequence[Entry],
        first_free: int,
        seeds: tuple[int, ...],
        folds: tuple[str, ...],
    ) -> None:
        super().__init__(metric="score", mode="max")
        self._tpe = tpe
        self._begun = list(begun)
        self._next_number = first_free
        self._seeds = seeds
        self._folds = folds
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        entry = self._next()
        if entry is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = entry.number
        return {_TRIAL: _spec(entry)}

    def _next(self) -> Entry | None:
        if self._begun:
            return self._begun.pop(0)
        setting = self._tpe.ask(self._next_number)
        if setting is None:
            return None
        self._next_number += 1
        return Entry(self._next_number - 1, setting, self._seeds, folds=self._folds)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        failed = error or not result or "problem" in result
        self._tpe.tell(self._numbers.pop(trial_id), None if failed else (result or {}).get("score"))

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing, because everything is in the ledger."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher, but the pickle is never read.
        return {}


class _Listener(tune.Callback):
    """Writes Tune's events to the ledger and forwards them to the display."""

    def __init__(self, ledger: Ledger, events: SearchEvents) -> None:
        self._ledger = ledger
        self._events = events

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        entry = _entry_of(trial)
        self._ledger.begin(entry)
        self._events.begun(entry)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "finished" not in result and "problem" not in result:
            self._events.advanced(_entry_of(trial), result["epoch"], result.get("score"))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = _entry_of(trial).key
        self._ledger.end(key, "failed", wall_s=_wall_s(trial), problem=_problem(trial))
        entry = self._ledger.get(key)
        assert entry is not None
        self._events.retried(entry, _problem(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "failed")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if "problem" in result:
            self._end(trial, "failed")
        else:
            self._end(trial, "finished" if result.get("finished") else "stopped")

    def _end(self, trial: Any, state: State) -> None:
        key = _entry_of(trial).key
        problem = _problem(trial) if state == "failed" else None
        self._ledger.end(key, state, wall_s=_wall_s(trial), problem=problem)
        entry = self._ledger.get(key)
        assert entry is not None
        self._events.ended(entry, (trial.last_result or {}).get("score"))


def _wall_s(trial: Any) -> float:
    return float((trial.last_result or {}).get("wall_s", 0.0))


def _problem(trial: Any) -> str:
    reported = (trial.last_result or {}).get("problem")
    lines = str(trial.get_error() or "").strip().splitlines()
    return reported or (lines[-1] if lines else "its process died, probably because memory ran out")


def _quiet() -> AbstractContextManager[None]:
    """Suppress Tune's output on the terminal."""
    # The runs write their own TensorBoard events; Tune's would be redundant.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    # A trial that fails immediately has no score to report.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    # Tune's newer output prints a banner even with verbose=0.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune's warnings concern developers, not users.
    return silenced("ray.tune", logging.CRITICAL)
