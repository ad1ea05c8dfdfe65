"""A long run with many kills ends with the undisturbed numbers and leaks nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from disturbance import (
    TABLE_VARIABLE,
    Recovery,
    comparable,
    kill_in_the_middle_of_a_fit,
    lines,
    pid_of,
    wait_for,
)
from stores import make_store
from test_faults_ray import training

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(7200)]

NUM_KILLS = int(os.environ.get("RAYDEC_NUM_KILLS", "20"))
# A kill comes after one to three epochs.
EPOCHS = 6 * NUM_KILLS
VICTIMS = ("rank 0", "rank 1", "kmeans")


def marked_processes(mark: bytes) -> list[int]:
    """Processes that inherited a variable: the driver, and all that Ray started for it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if mark in environment:
                found.append(int(folder.name))
    return found


def open_files(pids: list[int]) -> int:
    """Open files, except those of Ray's log monitor, which keeps up to 200 logs of dead workers open."""
    count = 0
    for pid in pids:
        try:
            if b"log_monitor.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                count += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    return count


def object_store_bytes(pids: list[int]) -> int:
    """Shared memory that the largest of the processes has mapped and touched."""
    sizes = []
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        sizes += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssShmem")]
    return max(sizes, default=0)


def test_many_kills_lose_nothing_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, num_train=12, num_unlabeled=6)
    more = [f"training.epochs={EPOCHS}", f"ray.max_failures={NUM_KILLS}"]
    undisturbed = tmp_path / "undisturbed" / "run"
    with training(store, undisturbed, *more) as driver:
        assert driver.wait() == 0
    monkeypatch.setenv("RAYDEC_MANY_KILLS", str(os.getpid()))
    mark = f"RAYDEC_MANY_KILLS={os.getpid()}".encode()
    run = tmp_path / "disturbed" / "run"
    usage: list[tuple[int, int, int]] = []
    with training(store, run, *more) as driver:

        def alive() -> bool:
            return driver.poll() is None

        for number in range(NUM_KILLS):
            finished = len(lines(run / "metrics.jsonl"))
            wait_for(lambda least=finished: len(lines(run / "metrics.jsonl")) > least, "an epoch", 900, alive)
            pids = marked_processes(mark)
            usage.append((len(pids), open_files(pids), object_store_bytes(pids)))
            time.sleep(random.uniform(0, lines(run / "metrics.jsonl")[-1]["time/epoch_s"]))
            victim = random.choice(VICTIMS)
            recovery = Recovery(run, f"kill {number + 1}: {victim}")
            if victim == "kmeans":
                kill_in_the_middle_of_a_fit(int(lines(run / "metrics.jsonl")[-1]["kmeans/actor_pid"]))
            else:
                os.kill(pid_of(run, victim), signal.SIGKILL)
            recovery.follow(alive)
        assert driver.wait() == 0, (run.parent / "output.txt").read_text()[-3000:]
    table = os.environ.get(TABLE_VARIABLE)
    if table:
        with Path(f"{table}.usage").open("w") as file:
            file.writelines(f"{count} {files} {size}\n" for count, files, size in usage)
    assert comparable(run) == comparable(undisturbed)
    first, last = usage[1], usage[-1]
    assert last[0] <= first[0] + 3
    # Ray keeps one or two sockets to each dead worker in the K-means actor.
    assert last[1] <= first[1] + 2 * NUM_KILLS
    assert last[2] <= first[2] * 1.2 + (16 << 20)
