"""Whatever is killed, and whenever, a run ends with the numbers of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from disturbance import (
    Recovery,
    comparable,
    kill_in_the_middle_of_a_fit,
    lines,
    pid_of,
    random_moment,
    wait_for,
)
from stores import SMALL_NETWORK, make_store

from raydec.learning.checkpoint import load_state

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(1800)]

EPOCHS = 12
SETTINGS = [
    *SMALL_NETWORK,
    "ray.cpus_per_worker=1",
    "ray.num_workers=2",
    f"training.epochs={EPOCHS}",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("faults"), num_train=12, num_unlabeled=6)


@pytest.fixture(scope="module")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    with training(store, run) as driver:
        assert driver.wait() == 0
    return run


@contextmanager
def training(store: Path, run: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "raydec.train", f"data.store={store}", f"output_dir={run.parent}"]
    command += [f"name={run.name}", *SETTINGS, *more]
    run.parent.mkdir(exist_ok=True)
    with (run.parent / "output.txt").open("ab") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield driver
        finally:
            driver.kill()
            driver.wait()


def kill_a_training_worker(run: Path) -> None:
    os.kill(pid_of(run, random.choice(["rank 0", "rank 1"])), signal.SIGKILL)


def kill_the_kmeans_actor_in_a_fit(run: Path) -> None:
    kill_in_the_middle_of_a_fit(pid_of(run, "kmeans"))


@pytest.mark.parametrize("fault", [kill_a_training_worker, kill_the_kmeans_actor_in_a_fit])
def test_a_killed_process_costs_time_and_nothing_else(
    store: Path, undisturbed: Path, tmp_path: Path, fault: Callable[[Path], None]
) -> None:
    run = tmp_path / "runs" / "disturbed"
    with training(store, run) as driver:
        moment = random_moment(run, EPOCHS, lambda: driver.poll() is None)
        fault(run)
        recovery = Recovery(run, f"kill -9 {fault.__name__.removeprefix('kill_').replace('_', ' ')}", moment)
        recovery.follow(lambda: driver.poll() is None)
        assert driver.wait() == 0, (run.parent / "output.txt").read_text()[-3000:]
    assert_equal(run, undisturbed)
    recovery.record()
    groups = len(lines(run / "workers.jsonl"))
    restarts = [line["kmeans/actor_restarted"] for line in lines(run / "metrics.jsonl")]
    if fault is kill_a_training_worker:
        assert groups == 2
    else:
        assert groups == 1 and 1.0 in restarts


def test_the_same_command_goes_on_after_its_driver_was_killed(
    store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "disturbed"
    with training(store, run) as driver:
        # Early, because its workers continue until they notice or the next command stops them.
        moment = random_moment(run, EPOCHS, lambda: driver.poll() is None, latest=EPOCHS // 2)
        recovery = Recovery(run, "kill -9 the driver, then the same command", moment)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    with training(store, run) as driver:
        recovery.follow(lambda: driver.poll() is None, by_new_group=True)
        assert driver.wait() == 0
    assert_equal(run, undisturbed)
    recovery.record()


def test_the_same_command_in_a_second_terminal_takes_the_run_over(
    store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "twice"
    with training(store, run) as first:
        wait_for(lambda: bool(lines(run / "metrics.jsonl")), "an epoch", 300, lambda: first.poll() is None)
        with training(store, run) as second:
            assert first.wait() == 2
            assert second.wait() == 0
    assert "another raydec process has taken over the run" in (run.parent / "output.txt").read_text()
    assert_equal(run, undisturbed)


def assert_equal(run: Path, undisturbed: Path) -> None:
    assert comparable(run) == comparable(undisturbed)
    assert (run / "summary.json").read_text() == (undisturbed / "summary.json").read_text()
    ours, theirs = (
        load_state(folder / "checkpoints" / f"epoch-{EPOCHS:05d}").network for folder in (run, undisturbed)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
