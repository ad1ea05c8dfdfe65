"""A host that cannot be reached for a while: the run ends with the numbers of an undisturbed one."""

from __future__ import annotations

import time

import pytest
from disturbance import Recovery, random_moment
from jobs import EPOCHS, LATEST_FAULT, TrainJob, assert_equal, worker_host
from launching import ClusterOfThree

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(3600)]

CUT_S = 60.0


def test_a_host_without_network_costs_time_and_nothing_else(
    cluster: ClusterOfThree, undisturbed: TrainJob
) -> None:
    with cluster.launcher.dashboard() as address:
        job = TrainJob(cluster, address, "cut", epochs=EPOCHS)
        job.submit()
        moment = random_moment(job.folder, EPOCHS, job.is_alive, LATEST_FAULT)
        recovery = Recovery(job.folder, f"cut a host's network for {CUT_S:.0f} s", moment)
        host = worker_host(cluster, job)
        cluster.hosts.set_cable(host, plugged=False)
        time.sleep(CUT_S)
        cluster.hosts.set_cable(host, plugged=True)
        recovery.follow(job.is_alive, by_new_group=True)
        job.wait()
        assert job.status() == "SUCCEEDED", job.logs()
    assert_equal(job, undisturbed)
    recovery.record()
