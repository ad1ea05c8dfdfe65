"""Three hosts with a running cluster, started once for all tests of this folder that use it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import PretendHosts, package_root, why_not
from jobs import EPOCHS, TrainJob
from launching import ClusterOfThree, Launcher
from stores import make_store


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterOfThree]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    # Not pytest's folder: paths of sockets and of ssh's control files must be short.
    folder = Path(tempfile.mkdtemp(prefix="rdc-"))
    shared = folder / "shared"
    shared.mkdir()
    environment = {
        "PYTHONPATH": str(package_root()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    environment |= {name: value for name, value in os.environ.items() if name == "RAY_worker_niceness"}
    hosts = PretendHosts(folder / "hosts", shared, environment)
    try:
        hosts.start()
        launcher = Launcher(folder / "launcher", hosts, shared / "runs")
        launcher.up()
        store = make_store(shared, num_train=12, num_unlabeled=6)
        yield ClusterOfThree(hosts, launcher, store, shared)
    finally:
        hosts.stop()
        left = hosts.leftovers()
        if not os.environ.get("RAYDEC_KEEP_CLUSTER_FILES"):
            shutil.rmtree(folder, ignore_errors=True)
        assert not left, left


@pytest.fixture(scope="module")
def undisturbed(cluster: ClusterOfThree) -> TrainJob:
    """A successful job, with which others are compared."""
    with cluster.launcher.dashboard() as address:
        job = TrainJob(cluster, address, "undisturbed", epochs=EPOCHS)
        job.submit()
        job.wait()
        assert job.status() == "SUCCEEDED", job.logs()
    return job
