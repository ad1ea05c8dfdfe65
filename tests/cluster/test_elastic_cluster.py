"""A run with one to three workers uses three hosts, loses one, and continues with two."""

from __future__ import annotations

import time

import pytest
from disturbance import Recovery, address_of, random_moment
from jobs import TrainJob
from launching import ClusterOfThree

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(3600)]

EPOCHS = 5


def hosts_of(job: TrainJob, group: int) -> list[str]:
    members = job.groups()[group]["members"]
    return sorted(member["address"] for member in members if member["role"].startswith("rank"))


def test_an_elastic_run_goes_on_with_the_hosts_that_are_left(cluster: ClusterOfThree) -> None:
    elastic = "ray.num_workers=[1,3]"
    with cluster.launcher.dashboard() as dashboard:
        undisturbed = TrainJob(cluster, dashboard, "three", elastic, epochs=EPOCHS)
        undisturbed.submit()
        undisturbed.wait()
        assert undisturbed.status() == "SUCCEEDED", undisturbed.logs()
        assert hosts_of(undisturbed, 0) == sorted(cluster.hosts.addresses)

        job = TrainJob(cluster, dashboard, "then-two", elastic, epochs=EPOCHS)
        job.submit()
        moment = random_moment(job.folder, EPOCHS, job.is_alive)
        recovery = Recovery(
            job.folder, "kill -9 all of Ray on one of three hosts, ray.num_workers=[1,3]", moment
        )
        head = cluster.hosts.addresses[0]
        lost = next(place for n in range(3) if (place := address_of(job.folder, f"rank {n}")) != head)
        cluster.hosts.kill_ray(lost)
        # Otherwise the launcher restarts it, and the run continues with three.
        time.sleep(1)
        cluster.hosts.set_cable(lost, plugged=False)
        try:
            recovery.follow(job.is_alive)
            job.wait()
        finally:
            cluster.hosts.set_cable(lost, plugged=True)
        assert job.status() == "SUCCEEDED", job.logs()
    assert hosts_of(job, 0) == sorted(cluster.hosts.addresses)
    assert hosts_of(job, -1) == sorted(set(cluster.hosts.addresses) - {lost})
    # World-size invariance: the numbers agree up to rounding, which training amplifies.
    for ours, theirs in zip(job.metrics(), undisturbed.metrics(), strict=True):
        assert ours["train/loss_emotion"] == pytest.approx(theirs["train/loss_emotion"], rel=1e-2)
    recovery.record("as with three workers")
