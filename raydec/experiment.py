"""Trains one run or searches over many, from the config to the results.

If Ray's workers train, this process does not import torch, because the import would slow down their start.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydec.config import Config
from raydec.errors import UserError
from raydec.features.store_cache import absolute_store
from raydec.files.hub import is_hub_name
from raydec.files.storage import is_uri, storage_explained
from raydec.learning.host import WORKER_ENVIRONMENT, import_ahead
from raydec.learning.selection import check_data
from raydec.placement import check_this_machine
from raydec.runs.opening import begin, changed_settings, refuse_other_kind, train_on_worker
from raydec.runs.run_folder import (
    CONFIG_FILE,
    SUMMARY_FILE,
    RunFolder,
    RunResult,
    finished_summary,
    run_location,
)
from raydec.runs.tracking import check_trackers

if TYPE_CHECKING:
    from raydec.search.config import TuneConfig
    from raydec.search.events import SearchEvents
    from raydec.search.plan import SearchPlan
    from raydec.search.results import SearchResults
    from raydec.search.state import Study
    from raydec.search.trial_job import Remaining


def resolve(config: Config) -> Config:
    """Fill in the run's name, and its store if unset: that of the demo corpus.

    Without a name, an unfinished run with the same settings is resumed if there is one.

    Raises:
        UserError: the store cannot be opened or lacks data that the config requires.
    """
    check_trackers(config)
    updates: dict[str, Any] = {"output_dir": str(Path(config.output_dir).absolute())}
    data = config.data
    if data.store is None:
        from raydec.demo import demo_store

        data = data.model_copy(update={"store": str(demo_store(Path(config.output_dir).absolute()))})
    else:
        data = data.model_copy(update={"store": absolute_store(data.store)})
    if data.encoder is not None and not is_hub_name(data.encoder):
        data = data.model_copy(update={"encoder": str(Path(data.encoder).absolute())})
    if config.model.init is not None and not config.model.init.startswith("hf:"):
        start = str(Path(config.model.init).absolute())
        updates["model"] = config.model.model_copy(update={"init": start})
    resolved = check_data(config.model_copy(update={**updates, "data": data}))
    if config.name is not None:
        return resolved
    return _named(resolved, "demo" if config.data.store is None else Path(data.store or "").name)


def train_run(config: Config, clusterer: Callable[..., Any] | None = None) -> RunResult:
    """Train a resolved config to the end; an earlier attempt is resumed.

    Starts or joins Ray only if the run is not finished.

    Args:
        config: the run's settings.
        clusterer: finds centroids instead of K-means, a :class:`raydec.learning.clusterer.CentroidFit`. It
            is pickled for the processes of Ray, and not part of the settings: resume with the same one.

    Raises:
        UserError: the run's storage cannot be written, or is not shared by all nodes of the cluster; see also
            :func:`begin` and :func:`raydec.ray_runtime.launch.train_on_ray`.
    """
    with storage_explained(run_location(config)):
        folder = begin(config)
    summary = finished_summary(folder)
    already_finished = summary is not None
    if summary is None:
        if config.ray.num_workers == 0:
            from raydec.runs.training_loop import train_here

            train_here(config, folder.location, folder.claim, clusterer)
        else:
            from raydec.ray_runtime import fast_start
            from raydec.ray_runtime.session import start_ray

            import_ahead("raydec.ray_runtime.launch", functools.partial(fast_start.is_usable, "train"))
            ray = config.ray
            start_ray(
                ray.address,
                ray.num_cpus,
                ray.object_store_gib,
                dashboard=ray.dashboard is True,
                niceness=ray.niceness,
            )
            from raydec.ray_runtime.launch import train_on_ray
            from raydec.ray_runtime.shared_storage import check_shared

            check_shared(config, folder.location)
            loop = functools.partial(train_on_worker, claim=folder.claim)
            train_on_ray(config, loop, folder.location, fit=clusterer)
        summary = finished_summary(folder)
        assert summary is not None, f"{folder.location} has no {SUMMARY_FILE} although training returned"
    assert config.name is not None
    local = folder.local if not is_uri(folder.location) else Path(config.output_dir) / config.name
    folder.fetch(local)
    return RunResult(config, local, summary, already_finished)


def search_run(
    config: TuneConfig,
    watch: Callable[[SearchPlan, int], AbstractContextManager[SearchEvents]] | None = None,
) -> SearchResults:
    """Run a search to the end, or resume an unfinished one, and write the results.

    Args:
        config: the search's settings.
        watch: returns a context manager that receives the events of all trials; called with the plan and the
            number of trials that have ended before.

    Raises:
        UserError: the search is invalid, does not fit on the machines, or exists with other settings.
        KeyboardInterrupt: it was interrupted; finished work is kept.
    """
    from raydec.ray_runtime.session import check_address
    from raydec.search.events import NullEvents
    from raydec.search.plan import plan_search

    plan = plan_search(config, _fold_names(config))
    search = config.search
    check_this_machine(
        config.ray,
        plan.num_trials,
        gpus_per_worker=search.gpus_per_worker,
        max_concurrent=search.max_concurrent,
    )
    if not Path(config.output_dir, config.search_name, "results.json").exists():
        check_address(config.ray.address)
    # Imported after the search is validated, because importing torch and Ray takes seconds.
    from raydec.pages.search_report import write_search_pages
    from raydec.search.results import conclude
    from raydec.search.state import find_remaining, open_study

    study = open_study(plan)
    remaining = find_remaining(study)
    if remaining.num_trials:
        watching = nullcontext(NullEvents()) if watch is None else watch(plan, len(remaining.past))
        with watching as events:
            _train_trials(study, remaining, events)
    results = conclude(study, already_finished=not remaining.num_trials)
    write_search_pages(results)
    return results


def _fold_names(config: TuneConfig) -> tuple[str, ...]:
    """The folds of a cross-validation, which depend on the store."""
    if config.search.folds is None:
        return ()
    from raydec.demo import demo_store
    from raydec.features.folds import fold_names
    from raydec.features.store import FeatureStore
    from raydec.features.store_cache import local_store

    store = config.data.store or str(demo_store(Path(config.output_dir).absolute()))
    return fold_names(FeatureStore.open(local_store(store)), config.search.folds)


def _train_trials(study: Study, remaining: Remaining, events: SearchEvents) -> None:
    """Start or join Ray, and train the remaining trials of a search with Ray Tune."""
    from raydec.ray_runtime.session import start_ray

    config = study.plan.config
    start_ray(
        config.ray.address,
        config.ray.num_cpus,
        config.ray.object_store_gib,
        dashboard=config.ray.dashboard is not False,
        # Ray Train sets this environment for its workers; other processes start faster without it.
        worker_environment=None if config.ray.num_workers else WORKER_ENVIRONMENT,
        niceness=config.ray.niceness,
    )
    from raydec.ray_runtime.search import TuneRunner
    from raydec.search.run import run_study

    first = next(study.plan.run_configs)
    store = resolve(first.model_copy(update={"name": study.name})).data.store
    assert store is not None
    run_study(study, remaining, events, TuneRunner(), store)


def _named(config: Config, stem: str) -> Config:
    """The config with the first free name of ``stem``, ``stem-2`` and so on.

    The name of an unfinished run with the same settings counts as free, so that the run is resumed.
    """
    for number in itertools.count(1):
        named = config.model_copy(update={"name": stem if number == 1 else f"{stem}-{number}"})
        folder = RunFolder(run_location(named))
        try:
            refuse_other_kind(folder, CONFIG_FILE)
            is_same = not changed_settings(named, folder)
        except UserError:
            continue
        if is_same and finished_summary(folder) is None:
            return named
    raise AssertionError("the numbers have run out")
