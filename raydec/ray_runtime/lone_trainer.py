"""Training on one machine that nobody adds machines to: two processes less to start and to wake up."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.train import Result
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import Worker, WorkerGroup

from raydec.ray_runtime.trainer import LeanTrainer


class LoneTrainer(LeanTrainer):
    """A LeanTrainer whose controller runs in this process and asks no autoscaler for machines.

    As an actor the controller is a process that imports Ray Train again, and so is the actor that it passes
    its wish for machines to: together 3 s of a core at each start, and 2% of a core, in a hundred wake-ups a
    second each, for as long as the run lasts (Ray 2.60). An actor is for drivers that are connected from
    elsewhere; this one is on the machine of its workers.
    """

    def _run_controller(self, **arguments: Any) -> Result:
        if _loop_is_running():
            return super()._run_controller(**arguments)
        if type(arguments["scaling_policy"]) is FixedScalingPolicy:
            arguments["scaling_policy"] = _NobodyToAsk(arguments["scaling_policy"].scaling_config)
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
    """Whether this thread's event loop is taken, as it is in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _NobodyToAsk(FixedScalingPolicy):
    """A fixed number of workers, and no autoscaler that should know of it."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class _WorkerGroup(WorkerGroup):
    def _init_train_context_on_workers(
        self, workers: list[Worker], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        """As Ray's, where the controller is no actor: ``get_all_reported_checkpoints`` alone asks for one."""
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
