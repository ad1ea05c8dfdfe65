"""Trains one run of a search: an ordinary run whose epochs are also reported to the search."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raydec.config import Config
from raydec.files.storage import CHECKPOINT_FOLDER, is_uri
from raydec.placement import Placement
from raydec.runs.opening import begin, changed_settings, train_on_worker
from raydec.runs.run_folder import RunFolder, finished_summary, run_location
from raydec.search.state import read_history
from raydec.search.trial_job import Report, StartCheckpoint

START_FOLDER = "start"
POLL_S, REMOTE_POLL_S = 0.5, 3.0


def train_trial(config: Config, share: Placement, report: Report, start: StartCheckpoint | None) -> None:
    """Train one run to the end; an earlier attempt is resumed.

    Args:
        config: the run's settings.
        share: its share of the cluster.
        report: called with the run's history whenever it has grown.
        start: the checkpoint from which the scheduler lets it continue, if any.
    """
    if start is not None:
        # If a paused run is resumed, its own checkpoints are at least as new as this one.
        if start.run != config.name or changed_settings(config, RunFolder(run_location(config))):
            _start_over(config, start.folder)
        shutil.rmtree(start.folder.parent, ignore_errors=True)
    folder = begin(config)
    with _reporting(folder, report):
        if finished_summary(folder) is None:
            _train(config, share, folder)


def _train(config: Config, share: Placement, folder: RunFolder) -> None:
    if config.ray.num_workers == 0:
        from raydec.runs.training_loop import train_here

        ray = config.ray.model_copy(
            update={"cpus_per_worker": share.cpus_per_worker, "use_gpu": share.use_gpu}
        )
        train_here(config.model_copy(update={"ray": ray}), folder.location, folder.claim)
        return
    from raydec.ray_runtime.launch import train_on_ray

    start = folder.local / START_FOLDER
    train_on_ray(
        config,
        functools.partial(train_on_worker, claim=folder.claim),
        folder.location,
        placement=share,
        start=str(next(start.iterdir())) if start.is_dir() else None,
    )


def _start_over(config: Config, start: Path) -> None:
    """Replace the contents of a run by another run's checkpoint."""
    run = Path(run_location(config))
    shutil.rmtree(run, ignore_errors=True)
    begin(config)
    # A run in this process reads its own checkpoint folder; that of Ray Train is written only by Ray Train.
    place = CHECKPOINT_FOLDER if config.ray.num_workers == 0 else START_FOLDER
    shutil.copytree(start, run / place / start.name)


@contextmanager
def _reporting(folder: RunFolder, report: Report) -> Iterator[None]:
    """Call ``report`` with the run's history whenever it has grown, in whatever process it trains."""
    stop = threading.Event()
    poll_s = REMOTE_POLL_S if is_uri(folder.location) else POLL_S

    def follow() -> None:
        seen = 0
        while not stop.wait(poll_s):
            history = read_history(folder)
            if len(history) > seen:
                report(history, False)
                seen = len(history)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join()
    report(read_history(folder), True)
