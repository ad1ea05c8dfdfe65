"""Whole hosts that die or cannot be reached: the run ends with the numbers of an undisturbed one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from disturbance import Recovery, address_of, comparable, random_moment
from jobs import TrainJob
from launching import ClusterOfThree

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(3600)]

EPOCHS = 5
CUT_S = 60.0


@pytest.fixture(scope="module")
def dashboard(cluster: ClusterOfThree) -> Iterator[str]:
    with cluster.launcher.dashboard() as address:
        yield address


@pytest.fixture(scope="module")
def undisturbed(cluster: ClusterOfThree, dashboard: str) -> TrainJob:
    job = TrainJob(cluster, dashboard, "undisturbed", epochs=EPOCHS)
    job.submit()
    job.wait()
    assert job.status() == "SUCCEEDED", job.logs()
    return job


def worker_host(cluster: ClusterOfThree, job: TrainJob) -> str:
    """A host with a training worker on it which is not the head: without the head there is no cluster."""
    places = [address_of(job.folder, role) for role in ("rank 1", "rank 0")]
    return next(address for address in places if address != cluster.hosts.addresses[0])


def kill_a_host(cluster: ClusterOfThree, job: TrainJob) -> None:
    cluster.hosts.kill_ray(worker_host(cluster, job))


def cut_a_hosts_network(cluster: ClusterOfThree, job: TrainJob) -> None:
    address = worker_host(cluster, job)
    cluster.hosts.set_cable(address, plugged=False)
    time.sleep(CUT_S)
    cluster.hosts.set_cable(address, plugged=True)


@pytest.mark.parametrize("fault", [kill_a_host, cut_a_hosts_network])
def test_a_lost_host_costs_time_and_nothing_else(
    cluster: ClusterOfThree,
    dashboard: str,
    undisturbed: TrainJob,
    fault: Callable[[ClusterOfThree, TrainJob], None],
) -> None:
    job = TrainJob(cluster, dashboard, fault.__name__.replace("_", "-"), epochs=EPOCHS)
    job.submit()
    moment = random_moment(job.folder, EPOCHS, job.is_alive)
    recovery = Recovery(job.folder, fault.__name__.replace("_", " "), moment)
    fault(cluster, job)
    recovery.follow(job.is_alive)
    job.wait()
    assert job.status() == "SUCCEEDED", job.logs()
    assert comparable(job.folder) == comparable(undisturbed.folder)
    ours, theirs = job.weights(), undisturbed.weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    recovery.record()
