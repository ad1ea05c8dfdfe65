"""Ray Train's trainer without the helper processes that a run of raydec has no use for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import Result
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from raydec.errors import DivergedError, TakenOverError

# Trying again would spoil another's run, or diverge again.
_FINAL = (TakenOverError, DivergedError)
# Hands out shards of Ray Data sets; there are none.
_DATASETS = "DatasetsCallback"
# Removes a placement group that outlived its controller; Ray does so itself when the job ends.
_CLEANER = "PlacementGroupCleanerCallback"


class LeanTrainer(DataParallelTrainer):
    """A DataParallelTrainer that starts, and waits for, fewer actors.

    Each helper is a process that imports Ray Data first: 1.6 s of a core at every start of a worker group
    (Ray 2.60). What is left out is named, not imported: where a version calls it otherwise, it stays.

    Args:
        is_whole_job: the run is all that its Ray job does, as opposed to one of a search.
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
        with _signal_handler_restored():
            return super().fit()

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in self._left_out]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        arguments["failure_policy"] = _Restarts(arguments["failure_policy"].failure_config)
        return self._run_controller(**arguments)

    def _run_controller(self, **arguments: Any) -> Result:
        """As an actor, as Ray Train does."""
        return super()._initialize_and_run_controller(**arguments)

    def _register_sigint_handler(self, controller: Any) -> None:
        """Ray's own handler leaves with ``sys.exit(0)``, as if the run had finished."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            return  # in the background of a shell, whose Ctrl-C is not for us

        def end_and_interrupt(*_: Any) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with suppress(RayActorError):  # how an actor says that it is gone
                ray.get(controller.abort.remote())
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, end_and_interrupt)


class _Restarts(DefaultFailurePolicy):
    """Ray Train's own, but for failures that another try would only repeat."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        causes = causes_of(training_failed_error)
        if any(isinstance(e, _FINAL) for cause in causes for e in (cause, cause.__cause__)):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


def causes_of(error: TrainingFailedError) -> list[Exception]:
    """What failed: in the workers, the first by rank, or in the controller."""
    if isinstance(error, WorkerGroupError):
        return list(error.worker_failures.values())
    return [error.controller_failure] if isinstance(error, ControllerError) else []


@contextmanager
def _signal_handler_restored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None:  # None: not set from Python
            signal.signal(signal.SIGINT, before)
