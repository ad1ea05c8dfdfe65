"""Starts the training workers of one run on Ray, and their K-means actor."""

from __future__ import annotations

import functools
import logging
import math
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import ray
import ray.train
import ray.util.client
from ray.exceptions import RayTaskError
from ray.train import TrainingFailedError

from raydec.config import Config, RayConfig
from raydec.errors import DivergedError, UserError
from raydec.files.storage import CHECKPOINT_FOLDER, storage_problem
from raydec.learning.host import WORKER_ENVIRONMENT, prepare_host
from raydec.placement import Placement, place
from raydec.ray_runtime import fast_start
from raydec.ray_runtime.kmeans_actor import create_kmeans_actor
from raydec.ray_runtime.process_group import ProcessGroupConfig
from raydec.ray_runtime.session import cluster_nodes, promised_nodes
from raydec.ray_runtime.snapshot import mend_snapshot
from raydec.ray_runtime.trainer import StopRetries, causes_of, fit_publicly, with_wrapped

TrainLoop = Callable[[Config, Any, Any, str], None]
"""The function that every worker runs. Its arguments are the config, a
:class:`raydec.learning.worker.Worker`, a :class:`raydec.learning.clusterer.Clusterer` and the run folder. It
must be importable without torch, like this module."""

# Ray Train's limit for one attempt to start the workers, and the error it then raises, which is not public.
_START_TIMEOUT_S = 60
_START_TIMEOUT_ERROR = "WorkerGroupStartupTimeoutError"
# To type checkers, the public names are those of Ray Train's first version.
_train: Any = ray.train
logger = logging.getLogger(__name__)


def place_on_cluster(config: RayConfig) -> Placement:
    """Place a run on the present cluster, or on the cluster at its full size if an autoscaler adds nodes.

    Raises:
        UserError: see :func:`place`.
    """
    live, possible = cluster_nodes(), promised_nodes()
    lacks_gpu = config.use_gpu is not False and not any(node.gpus for node in live)
    if not (lacks_gpu and any(node.gpus for node in possible)):
        try:
            return place(config, live)
        except UserError:
            if not possible:
                raise
    placement = place(config, possible)
    logger.warning(
        "the cluster has no room for the workers yet; waiting up to %d s for the autoscaler to add nodes "
        "(ray.placement_timeout_s)",
        config.placement_timeout_s,
    )
    return placement


def train_on_ray(
    config: Config,
    loop: TrainLoop,
    run_folder: str,
    callbacks: Sequence[Any] = (),
    *,
    placement: Placement | None = None,
    start: str | None = None,
    fit: Callable[..., Any] | None = None,
) -> None:
    """Run ``loop`` on a group of Ray Train workers until it returns; Ray must be running.

    If a worker dies, Ray Train restarts the whole group from the newest checkpoint, at most
    ``ray.max_failures`` times. The K-means actor belongs to this process and ends with it.

    Args:
        config: the run's settings.
        loop: importable function that every worker runs.
        run_folder: absolute path or URI; checkpoints go to ``run_folder/checkpoints``.
        callbacks: Ray Train callbacks.
        placement: resources of the run, if it is one of several; None: those of ``config.ray``, from the
            whole cluster.
        start: checkpoint folder to start from while the run has no checkpoint of its own.
        fit: finds centroids, a :class:`raydec.learning.clusterer.CentroidFit`; None: K-means.

    Raises:
        UserError: the run cannot be placed, or a worker raised it.
        RuntimeError: it failed more often than allowed; finished epochs are kept.
    """
    is_whole_job = placement is None
    is_lone_machine = _is_lone_machine()
    if placement is None:
        placement = place_on_cluster(config.ray)
    actor = create_kmeans_actor(
        f"raydec-kmeans-{config.name}-{secrets.token_hex(4)}",
        num_gpus=placement.actor_gpus if placement.use_gpu else 0.0,
        num_threads=None if is_whole_job else _threads_of(placement),
        timeout_s=config.ray.placement_timeout_s,
        fit=fit,
    )
    # Ray Train fetches reports when it polls, and a worker waits if it is two reports ahead: with the default
    # interval, an epoch would take at least 2 s. A poll takes 2 ms of a core.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if is_lone_machine:
        # The watcher for preemptions is another process that imports Ray; on a single machine it is useless.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Bound with partial, because the controller unpickles arguments of the trainer, which imports torch.
    train_loop = functools.partial(
        _worker_main,
        {
            "config": config,
            "loop": loop,
            "actor": actor,
            "run_folder": run_folder,
            "num_threads": placement.cpus_per_worker,
            "start": mend_snapshot(run_folder) or start,
        },
    )
    try:
        _fit(
            config,
            placement,
            is_whole_job=is_whole_job,
            is_lone_machine=is_lone_machine,
            train_loop_per_worker=train_loop,
            scaling_config=_scaling(placement),
            run_config=_run_config(config, run_folder, callbacks),
        )
    except (TrainingFailedError, RayTaskError) as error:
        raise _explained(error, config, run_folder) from error
    finally:
        ray.kill(actor)


def _fit(
    config: Config, placement: Placement, *, is_whole_job: bool, is_lone_machine: bool, **arguments: Any
) -> None:
    """Run a trainer: the fast one if it is usable, else Ray's public one."""
    backend, timeout_s = "nccl" if placement.use_gpu else "gloo", config.ray.collective_timeout_s
    if not fast_start.is_usable("train"):
        fit_publicly(backend=backend, timeout_s=timeout_s, **arguments)
        return
    from raydec.ray_runtime.fast_start.train import LeanTrainer, LoneTrainer, start_coordinator

    controller_is_here = is_whole_job and is_lone_machine
    if not controller_is_here or isinstance(placement.num_workers, tuple):
        start_coordinator()
    (LoneTrainer if controller_is_here else LeanTrainer)(
        is_whole_job=is_whole_job, backend_config=ProcessGroupConfig(backend, timeout_s), **arguments
    ).fit()


def _threads_of(placement: Placement) -> int:
    """Number of cores of a trial's workers, which wait while K-means runs; other trials use the others."""
    most = placement.num_workers[1] if isinstance(placement.num_workers, tuple) else placement.num_workers
    return max(1, most * placement.cpus_per_worker)


def _is_lone_machine() -> bool:
    """Whether the cluster is this machine alone and will not grow; False for a client (``ray://``)."""
    is_here = not ray.util.client.ray.is_connected()
    return is_here and len(cluster_nodes()) == 1 and not promised_nodes()


def _run_config(config: Config, run_folder: str, callbacks: Sequence[Any]) -> Any:
    # Not available in the oldest supported release.
    logging_config = getattr(_train, "LoggingConfig", None)
    quiet = {"logging_config": logging_config(log_level="ERROR")} if logging_config else {}
    return _train.RunConfig(
        name=CHECKPOINT_FOLDER,
        storage_path=run_folder,
        failure_config=_train.FailureConfig(
            max_failures=config.ray.max_failures,
            # Each of these failures is a minute of waiting for resources.
            controller_failure_limit=math.ceil(config.ray.placement_timeout_s / _START_TIMEOUT_S),
        ),
        checkpoint_config=_train.CheckpointConfig(num_to_keep=config.training.keep_checkpoints),
        worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
        callbacks=[*callbacks, StopRetries()],
        **quiet,
    )


def _scaling(placement: Placement) -> Any:
    resources: dict[str, float] = {"CPU": placement.cpus_per_worker}
    if placement.use_gpu:
        resources["GPU"] = placement.worker_gpus
    return _train.ScalingConfig(
        num_workers=placement.num_workers, use_gpu=placement.use_gpu, resources_per_worker=resources
    )


def _worker_main(job: dict[str, Any]) -> None:
    from raydec.ray_runtime.clusterer import RayClusterer
    from raydec.ray_runtime.worker import RayWorker

    prepare_host(job["num_threads"])
    config: Config = job["config"]
    worker = RayWorker(job["start"], job["actor"])
    clusterer = RayClusterer(job["actor"], worker, config.clustering, worker.group_number())
    job["loop"](config, worker, clusterer, job["run_folder"])


def _explained(error: Exception, config: Config, run_folder: str) -> Exception:
    """The error for a failed run: the user's mistake or storage error behind it, else a general one."""
    causes = causes_of(error)
    for cause in causes:
        for exception in with_wrapped(cause):
            if isinstance(exception, DivergedError):
                return DivergedError(str(exception))
            if isinstance(exception, UserError):
                return UserError(str(exception))
        problem = storage_problem(cause, run_folder)
        if problem is not None:
            return problem
        if type(cause).__name__ == _START_TIMEOUT_ERROR:
            return UserError(
                f"there was no room for the workers in {config.ray.placement_timeout_s} s "
                "(ray.placement_timeout_s); finished epochs are kept, run the same command again to resume"
            )
    return RuntimeError(
        f"run {config.name} failed after {config.ray.max_failures} restarts; finished epochs are kept, "
        f"run the same command again to resume. First cause: {causes[0] if causes else error}"
    )
