"""The process of Ray Train's controller, and interrupts; each trainer in a separate process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydec.ray_runtime import fast_start

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

IS_FAST = fast_start.is_usable("train")

# Writes the process of its controller to a file, then works until it is stopped.
INSIDE = """
import asyncio, signal, sys, time
from pathlib import Path
import ray
from ray.train import RunConfig, ScalingConfig
from raydec.ray_runtime.process_group import ProcessGroupConfig
from raydec.ray_runtime.session import start_ray
from raydec.ray_runtime.trainer import fit_publicly

kind, loop, folder, seconds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])

def work():
    place = "unknown"
    if kind != "public":
        from ray.train.v2._internal.execution.context import get_train_context
        place = "actor" if get_train_context().controller_actor else "driver"
    (folder / "partial").write_text(place)
    (folder / "partial").rename(folder / "controller")
    time.sleep(seconds)

def fit():
    if kind == "public":
        return fit_publicly(backend="gloo", timeout_s=60, **arguments)
    from raydec.ray_runtime.fast_start.train import LeanTrainer, LoneTrainer
    trainer = {"lean": LeanTrainer, "lone": LoneTrainer}[kind]
    return trainer(is_whole_job=True, backend_config=ProcessGroupConfig(), **arguments).fit()

async def fit_in_a_loop():
    return fit()

start_ray("local", num_cpus=1, object_store_gib=0.1, dashboard=False)
signal.signal(signal.SIGINT, signal.default_int_handler)
arguments = {
    "train_loop_per_worker": work,
    "scaling_config": ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
    "run_config": RunConfig(name="run", storage_path=str(folder)),
}
try:
    asyncio.run(fit_in_a_loop()) if loop == "taken" else fit()
    print("finished")
except KeyboardInterrupt:
    print("interrupted")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
deadline = time.monotonic() + 30
while ray.available_resources().get("CPU") != 1.0:
    assert time.monotonic() < deadline, "the interrupted run still holds its CPU"
    time.sleep(0.1)
"""


def begin(kind: str, folder: Path, *, loop: str = "free", seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", INSIDE, kind, loop, str(folder), str(seconds)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


needs_names = pytest.mark.skipif(not IS_FAST, reason="only the public API of Ray is used")


@pytest.mark.parametrize(
    ("kind", "controller"),
    [
        pytest.param("lone", "driver", marks=needs_names),
        pytest.param("lean", "actor", marks=needs_names),
        ("public", "unknown"),
    ],
)
def test_an_interrupt_ends_the_workers_and_is_raised(kind: str, controller: str, tmp_path: Path) -> None:
    process = begin(kind, tmp_path, seconds=1000)
    try:
        while not (tmp_path / "controller").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, messages = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, messages
    assert output.splitlines()[-1] == "interrupted"
    assert (tmp_path / "controller").read_text() == controller


@needs_names
def test_a_thread_with_a_running_loop_gets_the_controller_as_an_actor(tmp_path: Path) -> None:
    """As in a notebook."""
    process = begin("lone", tmp_path, loop="taken", seconds=0.1)
    output, messages = process.communicate(timeout=150)
    assert process.returncode == 0, messages
    assert output.splitlines()[-1] == "finished"
    assert (tmp_path / "controller").read_text() == "actor"
