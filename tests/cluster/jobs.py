"""A training run as a Ray job, and what it leaves on the shared folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from launching import ClusterOfThree

from raydec.learning.checkpoint import load_state

# Small enough for seconds per epoch; a worker takes all cores of a host, so that no host has two.
SMALL = [
    "model.channels=[8,8,8,8,16,16,16]",
    "model.embedding_dim=32",
    "features.scale=log",
    "clustering.num_clusters=4",
    "training.batch_utterances=4",
    "ray.num_workers=2",
    f"ray.cpus_per_worker={os.cpu_count()}",
]
NUMBERS_THAT_MAY_DIFFER = ("time/", "throughput/", "kmeans/")


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; none when it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class TrainJob:
    """``python -m raydec.train`` submitted to the cluster.

    Args:
        cluster: the cluster, with its store.
        address: of the dashboard.
        name: of the run.
        epochs: how many.
        settings: further ``key=value``.
    """

    def __init__(self, cluster: ClusterOfThree, address: str, name: str, *settings: str, epochs: int) -> None:
        self._launcher = cluster.launcher
        self._address = address
        self._attempt = 0
        self._name = name
        self._work = cluster.shared / "work"
        self._work.mkdir(exist_ok=True)
        self.folder = cluster.shared / "runs" / name
        self._command = [
            *("python", "-m", "raydec.train", f"name={name}", f"data.store={cluster.store}"),
            *(f"storage_path={self.folder.parent}", f"training.epochs={epochs}", *SMALL, *settings),
        ]

    def submit(self) -> None:
        """Hand the command in; again after a failure, it goes on with the run."""
        self._attempt += 1
        self._launcher.submit(self._address, self._work, *self._command, job=self._id())

    def wait(self, timeout_s: float = 600.0) -> None:
        """Until the job has ended, well or not."""
        deadline = time.monotonic() + timeout_s
        while self.status() in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline, f"no end in sight:\n{self.logs()}"
            time.sleep(1)

    def wait_for_epoch(self, epoch: int, timeout_s: float = 300.0) -> None:
        """Until the metrics of an epoch are there."""
        deadline = time.monotonic() + timeout_s
        while len(self.metrics()) < epoch:
            assert time.monotonic() < deadline, f"no epoch {epoch}:\n{self.logs()}"
            time.sleep(0.1)

    def status(self) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        return self._launcher.job_status(self._address, self._id())

    def logs(self) -> str:
        """What the job printed."""
        return self._launcher.job_logs(self._address, self._id())

    def metrics(self) -> list[dict[str, Any]]:
        """One object per epoch."""
        return lines(self.folder / "metrics.jsonl")

    def comparable(self) -> list[dict[str, Any]]:
        """The metrics, but for what depends on the clock and on processes."""
        return [
            {key: value for key, value in line.items() if not key.startswith(NUMBERS_THAT_MAY_DIFFER)}
            for line in self.metrics()
        ]

    def groups(self) -> list[dict[str, Any]]:
        """One object per worker group: where its processes were."""
        return lines(self.folder / "workers.jsonl")

    def weights(self) -> Mapping[str, torch.Tensor]:
        """Of the newest checkpoint."""
        newest = max(self.folder.glob("checkpoints/epoch-*"))
        return load_state(newest).network

    def _id(self) -> str:
        return f"{self._name}-{self._attempt}"
