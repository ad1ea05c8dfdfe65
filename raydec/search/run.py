"""Trains the remaining trials of a search."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from raydec.config import Config, RayConfig, config_yaml
from raydec.files.storage import is_uri
from raydec.learning.selection import check_data
from raydec.placement import Node, Placement, share_cluster
from raydec.runs.run_folder import SEARCH_FILE, RunFolder
from raydec.search.events import SearchEvents
from raydec.search.ledger import Ledger
from raydec.search.plan import SearchPlan
from raydec.search.state import TRIALS_FOLDER, Study, all_entries
from raydec.search.trial_job import Remaining, TrialJob

TUNE_FOLDER = "tune"

# Population based training keeps more checkpoints, because other trials read them while this one continues.
_EXCHANGED_CHECKPOINTS = 4


@runtime_checkable
class SearchRunner(Protocol):
    """The interface between a search and the cluster that trains its trials."""

    def nodes(self) -> Sequence[Node]:
        """The machines of the cluster."""
        ...

    def check_shared(self, config: Config, location: str) -> None:
        """Check that all machines share the storage.

        Raises:
            UserError: ``storage_path`` is unset, or is not shared by all machines.
        """
        ...

    def run_trials(
        self,
        plan: SearchPlan,
        job: TrialJob,
        remaining: Remaining,
        ledger: Ledger,
        events: SearchEvents,
        tune_folder: str,
    ) -> None:
        """Train the remaining trials to the end.

        Args:
            plan: the search.
            job: settings and placement common to all trials.
            remaining: the trials to train.
            ledger: records every start and end immediately.
            events: receives the progress of every trial, for display.
            tune_folder: path or URI for the runner's own files.
        """
        ...


def run_study(
    study: Study, remaining: Remaining, events: SearchEvents, runner: SearchRunner, store: str
) -> None:
    """Train the remaining trials.

    Args:
        study: the search.
        remaining: the trials to train.
        events: receives the progress of every trial.
        runner: the running cluster.
        store: path of the feature store.

    Raises:
        UserError: a trial does not fit on the cluster, or the store lacks data that a trial needs.
        KeyboardInterrupt: it was interrupted; finished trials are kept.
    """
    config = study.plan.config
    search = config.search
    share = share_cluster(
        _with_workers(config.ray, study.location),
        runner.nodes(),
        remaining.num_trials,
        gpus_per_worker=search.gpus_per_worker,
        max_concurrent=search.max_concurrent,
    )
    _check_data(study, store)
    job = _trial_job(study, share, store)
    folder = RunFolder(study.location)
    folder.create()
    runner.check_shared(config, study.location)
    folder.write(SEARCH_FILE, config_yaml(study.stored_config()))
    folder.sync()
    tune_folder = f"{study.location}/{TUNE_FOLDER}"
    _remove(tune_folder)
    runner.run_trials(study.plan, job, remaining, Ledger(folder), events, tune_folder)
    _remove(tune_folder)
    if any(entry.state == "begun" for entry in all_entries(study)):
        raise KeyboardInterrupt


def _with_workers(ray: RayConfig, location: str) -> RayConfig:
    """One worker per trial for remote storage, because a trial's own process only writes to folders."""
    if ray.num_workers is None and is_uri(location):
        return ray.model_copy(update={"num_workers": 1})
    return ray


def _remove(tune_folder: str) -> None:
    """Remove Tune's own files, which are not needed afterwards; some of them are pickles."""
    if not is_uri(tune_folder):
        shutil.rmtree(tune_folder, ignore_errors=True)


def _trial_job(study: Study, share: Placement, store: str) -> TrialJob:
    config = study.stored_config()
    exchanges = config.search.scheduler == "pbt"
    keep = config.training.keep_checkpoints
    training = config.training.model_copy(
        update={"keep_checkpoints": max(keep, _EXCHANGED_CHECKPOINTS) if exchanges else keep}
    )
    exchange_epochs = config.search.grace_epochs if exchanges else None
    base = config.model_copy(
        update={
            "name": None,
            "output_dir": str(study.local / TRIALS_FOLDER),
            "storage_path": study.trials if config.storage_path else None,
            "data": config.data.model_copy(update={"store": store}),
            "ray": config.ray.model_copy(update={"num_workers": share.num_workers}),
            "training": training,
        }
    )
    return TrialJob(base, share, config.search.metric, exchange_epochs, study.plan.folds)


def _check_data(study: Study, store: str) -> None:
    """Refuse a store that lacks data that some trial needs."""
    checked = []
    for config in study.plan.run_configs:
        if (config.data, config.features) not in checked:
            checked.append((config.data, config.features))
            check_data(_with_store(config, store))


def _with_store(config: Config, store: str) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"store": store})})
