"""A cluster of three hosts, by the commands of docs/cluster.md, from ``ray up`` to ``ray down``."""

from __future__ import annotations

import json
import time

import pytest
from disturbance import Recovery, address_of, random_moment
from jobs import EPOCHS, LATEST_FAULT, TrainJob, assert_equal, worker_host
from launching import ClusterOfThree

import raydec

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


def test_workers_of_one_run_train_on_two_hosts(cluster: ClusterOfThree, undisturbed: TrainJob) -> None:
    (group,) = undisturbed.groups()
    places = {member["role"]: member["address"] for member in group["members"]}
    assert set(places) == {"rank 0", "rank 1", "kmeans"}
    assert places["rank 0"] != places["rank 1"]
    assert set(places.values()) <= set(cluster.hosts.addresses)
    assert len(undisturbed.metrics()) == EPOCHS
    assert (undisturbed.folder / "summary.json").exists()
    assert (undisturbed.folder / "model" / "model.safetensors").exists()
    for address in {places["rank 0"], places["rank 1"]}:
        assert "store.json" in cluster.hosts.ssh(address, "ls ~/.cache/raydec/stores/*")


def test_results_that_would_stay_on_one_host_are_refused(cluster: ClusterOfThree) -> None:
    command = f"python -m raydec.train data.store={cluster.store} name=a ray.num_workers=2 ray.address=auto"
    refused = {"": "storage_path is unset", "storage_path=/root/runs": "does not see storage_path"}
    for storage, words in refused.items():
        said = cluster.launcher.on_head(f"unset RAYDEC_STORAGE; cd /tmp; {command} {storage} 2>&1")
        assert words in said, said


def test_without_the_token_nobody_gets_in(cluster: ClusterOfThree) -> None:
    code = "import ray; ray.init('auto', log_to_driver=False)"
    head = cluster.hosts.addresses[0]
    refused = cluster.hosts.ssh(head, f'RAY_AUTH_MODE=disabled python -c "{code}" 2>&1; echo $?', check=False)
    assert refused.strip().endswith("\n1"), refused
    assert "Unauthenticated" in refused or "token" in refused.lower(), refused


def test_nothing_but_ray_and_ssh_listens(cluster: ClusterOfThree) -> None:
    """The dashboard, which can run jobs, listens only on the head's loopback interface."""
    for address in cluster.hosts.addresses:
        listening = cluster.hosts.listening(address)
        assert 8076 in {port for _, port, _ in listening}
        known = ("sshd", "raylet", "gcs_server", "ray::", "python")
        assert all(owner.startswith(known) for _, _, owner in listening), listening
    on_head = cluster.hosts.listening(cluster.hosts.addresses[0])
    assert [local for local, port, _ in on_head if port == 8265] == ["127.0.0.1"]


def test_a_host_that_dies_costs_time_and_nothing_else(cluster: ClusterOfThree, undisturbed: TrainJob) -> None:
    with cluster.launcher.dashboard() as address:
        job = TrainJob(cluster, address, "lost-host", epochs=EPOCHS)
        job.submit()
        moment = random_moment(job.folder, EPOCHS, job.is_alive, LATEST_FAULT)
        recovery = Recovery(job.folder, "kill -9 all of Ray on a host", moment)
        cluster.hosts.kill_ray(worker_host(cluster, job))
        recovery.follow(job.is_alive, by_new_group=True)
        job.wait()
        assert job.status() == "SUCCEEDED", job.logs()
    assert len(job.groups()) == 2
    assert_equal(job, undisturbed)
    recovery.record()


@pytest.mark.slow
def test_a_search_spreads_over_the_hosts_and_its_best_model_loads(cluster: ClusterOfThree) -> None:
    """If a worker needs a whole host, two concurrent trials need two hosts."""
    grid = ["search.searcher=grid", "search.space.clustering.num_clusters=[3,4]", "search.max_concurrent=2"]
    with cluster.launcher.dashboard() as address:
        job = TrainJob(cluster, address, "search", "ray.num_workers=1", *grid, epochs=2, module="raydec.tune")
        job.submit()
        job.wait()
        assert job.status() == "SUCCEEDED", job.logs()
    assert json.loads((job.folder / "results.json").read_text())
    runs = sorted((job.folder / "trials").iterdir())
    assert len(runs) == 2
    assert len({address_of(run, "rank 0") for run in runs}) == 2
    assert raydec.load(job.folder / "best")


def test_down_leaves_no_process(cluster: ClusterOfThree) -> None:
    """Must be the last test of this file, because it stops the cluster.

    The ssh connections from the head to the workers end by themselves, ten seconds after their last command
    (Ray's ``ControlPersist``); whatever is still there long after that is left over.
    """
    cluster.launcher.down()
    head, *workers = cluster.hosts.addresses
    for address in workers:
        cluster.hosts.ssh(address, "ray stop")
    nothing: dict[str, dict[int, str]] = {address: {} for address in (head, *workers)}
    deadline = time.monotonic() + 30
    while (left := {address: cluster.hosts.processes(address) for address in nothing}) != nothing:
        assert time.monotonic() < deadline, left
        time.sleep(1)
