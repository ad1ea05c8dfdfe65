"""Trainers of Ray Train that start fewer processes."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator
from ray.exceptions import RayActorError
from ray.train import Result
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import Worker, WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from raydec.ray_runtime.trainer import causes_of, final_cause, interrupt_restored

# Distributes shards of Ray Data sets, which raydec does not use.
_DATASETS = "DatasetsCallback"
# Removes placement groups that outlive their controller; at the end of the job, Ray does this itself.
_CLEANER = "PlacementGroupCleanerCallback"


def start_coordinator() -> None:
    """Start the actor that Ray Train's controller would otherwise start first, and wait for.

    It then starts while the controller imports its modules, which saves 1.5 s per run.
    """
    default_autoscaling_coordinator.get_or_create_autoscaling_coordinator()


class LeanTrainer(DataParallelTrainer):
    """A DataParallelTrainer with fewer helper actors.

    Each helper is a process that imports Ray Data: 1.6 s of a core at every start of a worker group
    (Ray 2.60).

    Args:
        is_whole_job: whether the run is its whole Ray job, not one run of a search.
        arguments: of Ray Train's ``DataParallelTrainer``.
    """

    def __init__(self, *, is_whole_job: bool, **arguments: Any) -> None:
        self._left_out = {_DATASETS, _CLEANER} if is_whole_job else {_DATASETS}
        super().__init__(**arguments)

    def fit(self) -> Result:
        """See Ray Train's ``DataParallelTrainer``.

        Raises:
            KeyboardInterrupt: it was interrupted; the workers are ended.
        """
        with interrupt_restored():
            return super().fit()

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in self._left_out]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        arguments["failure_policy"] = _Restarts(arguments["failure_policy"].failure_config)
        return self._run_controller(**arguments)

    def _run_controller(self, **arguments: Any) -> Result:
        """Run the controller as an actor, like Ray Train."""
        return super()._initialize_and_run_controller(**arguments)

    def _register_sigint_handler(self, controller: Any) -> None:
        """Set a handler for Ctrl-C; Ray's own exits with ``sys.exit(0)``, as if the run had finished."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            return  # in the background of a shell, which should ignore Ctrl-C

        def end_and_interrupt(*_: Any) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with suppress(RayActorError):  # raised because the actor exits
                ray.get(controller.abort.remote())
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, end_and_interrupt)


class _Restarts(DefaultFailurePolicy):
    """Ray Train's policy, except that some failures are not retried; see :func:`final_cause`."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if final_cause(causes_of(training_failed_error)):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


class LoneTrainer(LeanTrainer):
    """A LeanTrainer whose controller runs in this process and uses no autoscaler.

    Otherwise the controller is an actor, that is, another process that imports Ray Train, and a second actor
    handles its autoscaling requests. Together they cost 3 s of a core at each start and, because each wakes
    up a hundred times a second, 2% of a core during the whole run (Ray 2.60). A controller in an actor is
    needed only if the driver is on another machine than its workers.
    """

    def _run_controller(self, **arguments: Any) -> Result:
        if _loop_is_running():
            return super()._run_controller(**arguments)
        if type(arguments["scaling_policy"]) is FixedScalingPolicy:
            arguments["scaling_policy"] = _FixedSize(arguments["scaling_policy"].scaling_config)
        controller = _Controller(**arguments)
        try:
            asyncio.run(controller.run())
        except BaseException:
            group = controller.get_worker_group()
            if group is not None:
                group.abort()
            raise
        return controller.get_result()


def _loop_is_running() -> bool:
    """Whether this thread already runs an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _FixedSize(FixedScalingPolicy):
    """A fixed number of workers, without requests to an autoscaler."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class _WorkerGroup(WorkerGroup):
    def _init_train_context_on_workers(
        self, workers: list[Worker], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        """Like Ray's, but without a controller actor, which only ``get_all_reported_checkpoints`` needs."""
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[index] for name, values in train_context_args.items()},
                )
                for index, worker in enumerate(workers)
            ]
        )
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):
    worker_group_cls = _WorkerGroup
