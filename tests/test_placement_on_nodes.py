"""Number and size of workers on a cluster of several nodes, and gloo's address on each."""

import pytest

from raydec.config import RayConfig, load_config
from raydec.errors import UserError
from raydec.placement import Node

pytest.importorskip("ray")

from raydec.placement import place
from raydec.ray_runtime.process_group import interface_of


@pytest.mark.parametrize(
    ("cores", "num_workers", "expected"),
    [([2, 2, 2], 2, 2), ([8], 2, 4), ([1, 8], 2, 4), ([5, 3], 2, 3), ([1, 1], 2, 1), ([8, 8], 1, 8)],
)
def test_no_worker_is_larger_than_a_node(cores: list[int], num_workers: int, expected: int) -> None:
    placement = place(RayConfig(num_workers=num_workers), [Node(float(count)) for count in cores])
    assert placement.cpus_per_worker == expected


def test_what_only_several_nodes_together_could_hold_is_refused() -> None:
    config = RayConfig(num_workers=2, cpus_per_worker=3)
    with pytest.raises(UserError, match=r"= 6 CPUs, but the cluster has 8 on 4 nodes \(no worker can span"):
        place(config, [Node(2.0)] * 4)


def test_a_range_of_workers_needs_room_for_the_fewest_only() -> None:
    config = RayConfig(num_workers=(2, 4), cpus_per_worker=2)
    assert place(config, [Node(2.0)] * 2).num_workers == (2, 4)
    with pytest.raises(UserError, match=r"ray\.num_workers=2 x 2 CPUs"):
        place(config, [Node(3.0)])
    # Unset cores are shared among the maximal number of workers.
    assert place(RayConfig(num_workers=(1, 4)), [Node(8.0)]).cpus_per_worker == 2


@pytest.mark.parametrize("wished", ["abc", "-1", "[3,2]", "[0,2]", "[1,2,3]", "true"])
def test_other_numbers_of_workers_are_refused_by_name(wished: str) -> None:
    with pytest.raises(UserError, match=r"ray\.num_workers=.*a minimum and a maximum as in \[2,4\]"):
        load_config(None, [f"ray.num_workers={wished}"])


def test_a_node_without_a_gpu_takes_no_worker_that_needs_one() -> None:
    nodes = [Node(32.0), Node(8.0, gpus=2.0)]
    placement = place(RayConfig(), nodes)
    assert (placement.num_workers, placement.cpus_per_worker) == (2, 4)


def test_the_loopback_interface_is_found_by_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.77") is None
