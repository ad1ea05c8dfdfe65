"""A training run as a Ray job, and its files in the shared folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import torch
from disturbance import address_of, comparable, lines
from launching import ClusterOfThree
from stores import SMALL_NETWORK

from raydec.learning.checkpoint import load_state

EPOCHS = 12
LATEST_FAULT = EPOCHS // 2
"""Asking a job's status and reaching a host by ssh take seconds, a later epoch might be the last by then."""
# A worker takes all cores of a host, so that no host has two.
SMALL = [
    *SMALL_NETWORK,
    "ray.num_workers=2",
    f"ray.cpus_per_worker={os.cpu_count()}",
]


class TrainJob:
    """``python -m raydec.train``, or a search, submitted to the cluster.

    Args:
        cluster: the cluster, with its store.
        address: of the dashboard.
        name: of the run.
        epochs: how many.
        settings: further ``key=value``.
        module: what is run.
    """

    def __init__(
        self,
        cluster: ClusterOfThree,
        address: str,
        name: str,
        *settings: str,
        epochs: int,
        module: str = "raydec.train",
    ) -> None:
        self._launcher = cluster.launcher
        self._address = address
        self._attempt = 0
        self._asked, self._alive = 0.0, True
        self._name = name
        self._work = cluster.shared / "work"
        self._work.mkdir(exist_ok=True)
        self.folder = cluster.shared / "runs" / name
        self._command = [
            *("python", "-m", module, f"name={name}", f"data.store=file://{cluster.store}"),
            *(f"training.epochs={epochs}", *SMALL, *settings),
        ]

    def submit(self) -> None:
        """Submit the command; after a failure, submitting it again resumes the run."""
        self._attempt += 1
        self._asked, self._alive = time.monotonic(), True
        self._launcher.submit(self._address, self._work, *self._command, job=self._id())

    def wait(self, timeout_s: float = 600.0) -> None:
        """Wait until the job has ended, successfully or not."""
        deadline = time.monotonic() + timeout_s
        while self.status() in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline, f"no end in sight:\n{self.logs()}"
            time.sleep(1)

    def is_alive(self) -> bool:
        """Whether the job has not ended; asked at most every few seconds, because asking starts a process."""
        if time.monotonic() - self._asked > 5:
            status = self.status()
            assert status != "FAILED", self.logs()
            self._alive = status in ("PENDING", "RUNNING")
            self._asked = time.monotonic()
        return self._alive

    def status(self) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        return self._launcher.job_status(self._address, self._id())

    def logs(self) -> str:
        """What the job printed."""
        return self._launcher.job_logs(self._address, self._id())

    def metrics(self) -> list[dict[str, Any]]:
        """One object per epoch."""
        return lines(self.folder / "metrics.jsonl")

    def groups(self) -> list[dict[str, Any]]:
        """One object per worker group: where its processes were."""
        return lines(self.folder / "workers.jsonl")

    def weights(self) -> Mapping[str, torch.Tensor]:
        """Of the newest checkpoint."""
        newest = max(self.folder.glob("checkpoints/epoch-*"))
        return load_state(newest).network

    def _id(self) -> str:
        return f"{self._name}-{self._attempt}"


def worker_host(cluster: ClusterOfThree, job: TrainJob) -> str:
    """A host with a training worker on it which is not the head: without the head there is no cluster."""
    places = [address_of(job.folder, role) for role in ("rank 1", "rank 0")]
    return next(address for address in places if address != cluster.hosts.addresses[0])


def assert_equal(job: TrainJob, undisturbed: TrainJob) -> None:
    """The same metrics in every epoch, and the same weights, bit for bit."""
    assert comparable(job.folder) == comparable(undisturbed.folder)
    ours, theirs = job.weights(), undisturbed.weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
