"""The work of a training process: opening the store, creating rank 0's recorder, training."""

from __future__ import annotations

from pathlib import Path

import torch

from raydec.config import Config
from raydec.errors import UserError
from raydec.files.storage import is_uri, storage_explained
from raydec.learning.clusterer import CentroidFit, Clusterer, LocalClusterer
from raydec.learning.data import TrainingData, select_data
from raydec.learning.host import prepare_host
from raydec.learning.selection import filled, open_store
from raydec.learning.training import NullRecorder, Recorder, Training
from raydec.learning.worker import LocalWorker, Worker
from raydec.runs.recorder import RunRecorder
from raydec.runs.run_folder import RunFolder


def open_data(config: Config) -> tuple[Config, TrainingData]:
    """Open a config's store and select its chunks; also returns the config, filled in by its recipe.

    Raises:
        UserError: see :func:`open_store` and :func:`select_data`.
    """
    store = open_store(config)
    config = filled(config, store)
    return config, select_data(config, store)


def train_loop(
    config: Config, worker: Worker, clusterer: Clusterer, location: str, claim: str | None = None
) -> None:
    """The function that every worker of a run executes; for ``claim``, see :class:`RunFolder`.

    Raises:
        TakenOverError: another process has taken over the run; see :meth:`RunFolder.check_claim`.
    """
    config, data = open_data(config)
    with storage_explained(location):
        folder = RunFolder(location, claim) if worker.rank == 0 else None
        if folder is not None:
            # Before anything is restored: whoever took the run over may have deleted the checkpoint.
            folder.check_claim()
        members = worker.members()
        recorder: Recorder = NullRecorder()
        if folder is not None:
            recorder = RunRecorder(folder, config, data.labeled.store, data, members)
        Training(config, data, worker, clusterer, recorder).run()


def train_here(
    config: Config, location: str, claim: str | None = None, fit: CentroidFit | None = None
) -> None:
    """Train in this process, without Ray (``ray.num_workers=0``); ``fit`` replaces K-means."""
    use_gpu = config.ray.use_gpu is True or (config.ray.use_gpu == "auto" and torch.cuda.is_available())
    prepare_host(config.ray.cpus_per_worker)
    if is_uri(location):
        raise UserError(f"storage_path={location}: ray.num_workers=0 only writes to local folders")
    worker = LocalWorker(Path(location), "cuda" if use_gpu else "cpu", config.training.keep_checkpoints)
    train_loop(config, worker, LocalClusterer(worker, config.clustering, fit), location, claim)
