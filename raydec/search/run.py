"""Trains what is left of a search."""

from __future__ import annotations

import shutil

from raydec.config import Config, config_yaml
from raydec.experiment import resolve
from raydec.files.storage import is_uri
from raydec.learning.selection import check_data
from raydec.placement import TrialShare, share_cluster
from raydec.runs.run_folder import RunFolder
from raydec.search.events import SearchEvents
from raydec.search.ledger import Ledger
from raydec.search.state import SEARCH_FILE, TRIALS_FOLDER, Study, all_entries
from raydec.search.train_trial import train_trial
from raydec.search.trial_job import Remaining, TrialJob

TUNE_FOLDER = "tune"

# Population based training keeps more of them: other trials read them while this one goes on.
_EXCHANGED_CHECKPOINTS = 4


def run_study(study: Study, remaining: Remaining, events: SearchEvents) -> None:
    """Train what is left. Ray must be running.

    Raises:
        UserError: it cannot be placed on the cluster, or the data does not have what is asked for.
        KeyboardInterrupt: it was interrupted; what was finished is kept.
    """
    from raydec.ray_runtime.search import run_trials
    from raydec.ray_runtime.session import cluster_nodes
    from raydec.ray_runtime.shared_storage import check_shared

    config = study.plan.config
    share = share_cluster(config.ray, config.search, cluster_nodes(), remaining.num_trials)
    job = _trial_job(study, share)
    folder = RunFolder(study.location)
    folder.create()
    check_shared(config, study.location)
    folder.write(SEARCH_FILE, config_yaml(study.stored_config()))
    folder.sync()
    tune_folder = f"{study.location}/{TUNE_FOLDER}"
    _remove(tune_folder)
    run_trials(study.plan, share, job, remaining, Ledger(folder), events, tune_folder)
    _remove(tune_folder)
    if any(entry.state == "begun" for entry in all_entries(study)):
        raise KeyboardInterrupt


def _remove(tune_folder: str) -> None:
    """Tune's own files are of no use to anyone afterwards, and some of them are pickles."""
    if not is_uri(tune_folder):
        shutil.rmtree(tune_folder, ignore_errors=True)


def _trial_job(study: Study, share: TrialShare) -> TrialJob:
    """What all trials share; their feature store is made or found once, here."""
    config = study.stored_config()
    store = _checked_store(study)
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
    return TrialJob(base, share, config.search.metric, exchange_epochs, train_trial)


def _checked_store(study: Study) -> str:
    """Path of the feature store, which has what every trial will ask for."""
    first, *others = study.plan.representatives
    store = resolve(first.model_copy(update={"name": study.name})).data.store
    assert store is not None
    checked = [(first.data, first.features)]
    for config in others:
        if (config.data, config.features) not in checked:
            checked.append((config.data, config.features))
            check_data(_with_store(config, store))
    return store


def _with_store(config: Config, store: str) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"store": store})})
