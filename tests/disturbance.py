"""Faults at random moments of a run, and the time to recover from them."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE_VARIABLE = "RAYDEC_FAULTS_TABLE"
_NUMBERS_THAT_MAY_DIFFER = ("time/", "throughput/", "kmeans/")


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; none when it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def comparable(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, except those that depend on the clock and on processes."""
    return [
        {key: value for key, value in line.items() if not key.startswith(_NUMBERS_THAT_MAY_DIFFER)}
        for line in lines(run / "metrics.jsonl")
    ]


def address_of(run: Path, role: str) -> str:
    """The address of a process of the current worker group."""
    return str(_member(run, role)["address"])


def pid_of(run: Path, role: str) -> int:
    """Process id, on its host, of a member of the current worker group."""
    return int(_member(run, role)["pid"])


def _member(run: Path, role: str) -> dict[str, Any]:
    return next(member for member in lines(run / "workers.jsonl")[-1]["members"] if member["role"] == role)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float, alive: Callable[[], bool]) -> None:
    """Poll a condition until it holds, as long as the run is alive.

    Whether a job is alive takes seconds to find out, in which a short run may end; so another thread does.
    """
    deadline = time.monotonic() + timeout_s
    pool = ThreadPoolExecutor(1)
    check = pool.submit(alive)
    try:
        while not condition():
            if check.done():
                # A run that has ended may have met the condition first.
                assert check.result() or condition(), f"the run ended before {what}"
                check = pool.submit(alive)
            assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
            time.sleep(0.05)
    finally:
        pool.shutdown(wait=False)


def random_moment(run: Path, epochs: int, alive: Callable[[], bool], latest: int | None = None) -> str:
    """Wait for a random point after the first epoch, aimed at epoch ``latest`` or the last but one at most.

    Returns the actual epoch, because a check whether a job is alive takes seconds and epochs are short.
    """
    metrics = run / "metrics.jsonl"
    epoch = random.randint(1, (latest or epochs - 1) - 1)
    wait_for(lambda: len(lines(metrics)) >= epoch, f"epoch {epoch}", 600, alive)
    time.sleep(random.uniform(0, lines(metrics)[-1]["time/epoch_s"]))
    finished = len(lines(metrics))
    assert finished < epochs, f"all {epochs} epochs had ended before the fault, which aimed at {epoch + 1}"
    return f"{time.time() - metrics.stat().st_mtime:.1f} s into epoch {finished + 1} of {epochs}"


def kill_in_the_middle_of_a_fit(pid: int, timeout_s: float = 300.0) -> None:
    """Kill a K-means actor while it fits; Ray shows an actor's current task in its command line."""
    doing = Path(f"/proc/{pid}/cmdline")
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if b"KMeansActor.fit" not in doing.read_bytes():
            continue
        os.kill(pid, signal.SIGSTOP)
        if b"KMeansActor.fit" in doing.read_bytes():
            os.kill(pid, signal.SIGKILL)
            return
        os.kill(pid, signal.SIGCONT)
    raise AssertionError(f"process {pid} fitted nothing in {timeout_s:.0f} s")


@dataclass
class Recovery:
    """Follows a run from a fault on.

    Args:
        run: its directory.
        fault: name of the fault, for the table.
    """

    run: Path
    fault: str
    moment: str = ""

    def __post_init__(self) -> None:
        self._finished = len(lines(self.run / "metrics.jsonl"))
        self._groups = len(lines(self.run / "workers.jsonl"))
        self._begun = time.monotonic()
        self._group_s: float | None = None
        self._epoch_s = 0.0

    def follow(
        self, alive: Callable[[], bool], timeout_s: float = 900.0, *, by_new_group: bool = False
    ) -> None:
        """Wait until the next epoch is finished, possibly by a new worker group."""

        def progressed() -> bool:
            groups = lines(self.run / "workers.jsonl")
            if self._group_s is None and len(groups) > self._groups:
                self._group_s = time.monotonic() - self._begun
                # Workers that outlive their driver finish more epochs meanwhile.
                self._finished = groups[-1]["epoch"]
            if by_new_group and self._group_s is None:
                return False
            return len(lines(self.run / "metrics.jsonl")) > self._finished

        wait_for(progressed, "an epoch after the fault", timeout_s, alive)
        self._epoch_s = time.monotonic() - self._begun

    def record(self, result: str = "equal") -> None:
        """Add a line to the table, if requested; to be called once the results were found equal."""
        table = os.environ.get(TABLE_VARIABLE)
        if not table:
            return
        usual_s = statistics.median(line["time/epoch_s"] for line in lines(self.run / "metrics.jsonl"))
        group = "not restarted" if self._group_s is None else f"{self._group_s:.0f} s"
        cells = [self.fault, self.moment, group, f"{self._epoch_s:.0f} s", f"{usual_s:.1f} s", result]
        with Path(table).open("a") as file:
            file.write(f"| {' | '.join(cells)} |\n")
