"""Things that Ray Train does not start: useless helpers, and torch in its controller and its driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

pytest.importorskip("ray")
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError

from raydec.errors import DivergedError, TakenOverError
from raydec.ray_runtime import fast_start
from raydec.ray_runtime.process_group import ProcessGroupConfig
from raydec.ray_runtime.trainer import StopRetries

needs_names = pytest.mark.skipif(
    fast_start.problem_with("train") is not None, reason="only the public API of Ray is used"
)


def helpers(folder: Path, *, is_whole_job: bool | None) -> set[str]:
    """Names of the callbacks of a trainer; None: of Ray's own."""
    from raydec.ray_runtime.fast_start.train import LeanTrainer

    trainer = LeanTrainer(
        is_whole_job=bool(is_whole_job),
        train_loop_per_worker=print,
        backend_config=ProcessGroupConfig(),
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="run", storage_path=str(folder)),
    )
    if is_whole_job is None:
        callbacks = super(LeanTrainer, trainer)._create_default_callbacks()
    else:
        callbacks = trainer._create_default_callbacks()
    return {type(callback).__name__ for callback in callbacks}


@needs_names
def test_helpers_without_a_use_are_left_out(tmp_path: Path) -> None:
    of_ray = helpers(tmp_path, is_whole_job=None)
    assert of_ray - helpers(tmp_path, is_whole_job=False) == {"DatasetsCallback"}
    assert of_ray - helpers(tmp_path, is_whole_job=True) == {
        "DatasetsCallback",
        "PlacementGroupCleanerCallback",
    }
    assert "BackendSetupCallback" in of_ray


def test_the_controller_unpickles_the_process_group_without_torch(tmp_path: Path) -> None:
    pickled = tmp_path / "config"
    pickled.write_bytes(cloudpickle.dumps(ProcessGroupConfig("nccl", 7)))
    code = (
        "import pathlib, pickle, sys\n"
        "config = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "config.backend_cls()\n"
        "print(config.backend, config.timeout_s, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, pickled], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["nccl", "7", "False"]


def test_a_driver_needs_no_torch() -> None:
    """What it imports, and what Ray Train asks it for before the controller starts."""
    code = (
        "import sys\n"
        "import raydec.train, raydec.experiment, raydec.console.progress, raydec.ray_runtime.train_trial\n"
        "from raydec.ray_runtime import launch, session, shared_storage\n"
        "launch.ProcessGroupConfig().train_func_context()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def final_failures() -> list[tuple[Exception, ...]]:
    wrapped = RuntimeError("a collective failed")
    wrapped.__cause__ = TakenOverError("another raydec process has taken over the run")
    several = (RuntimeError("a collective failed"), TakenOverError("gone"))
    as_argument = RuntimeError(DivergedError("a loss is not finite"), "its traceback")
    return [several, (wrapped,), (as_argument,), (DivergedError("a loss is not finite"),)]


@needs_names
def test_a_run_that_was_taken_over_or_diverged_is_not_tried_again() -> None:
    from ray.train.v2._internal.execution.failure_handling import FailureDecision

    from raydec.ray_runtime.fast_start.train import _Restarts

    def decision(*failures: Exception) -> FailureDecision:
        error = WorkerGroupError("workers failed", dict(enumerate(failures)))
        return _Restarts(FailureConfig(max_failures=3)).make_decision(error)

    assert decision(RuntimeError("a worker died")) is FailureDecision.RETRY
    for failures in final_failures():
        assert decision(*failures) is FailureDecision.RAISE


def test_ray_train_is_told_publicly_to_end_such_a_run() -> None:
    ending = StopRetries()
    ending.after_exception(None, {0: RuntimeError("a worker died")})
    for failures in final_failures():
        with pytest.raises((TakenOverError, DivergedError)):
            ending.after_exception(None, dict(enumerate(failures)))
