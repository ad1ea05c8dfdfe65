"""Resources of each trial on a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydec.config import RayConfig
from raydec.errors import UserError
from raydec.placement import Node as _Node
from raydec.placement import Placement, share_cluster
from raydec.search.run import _with_workers


def Node(cpus: int, gpus: int = 0, memory_gib: float | None = None) -> _Node:
    return _Node(float(cpus), float(gpus), memory_gib)


def share(nodes: list[_Node], num_trials: int = 100, **settings: Any) -> Placement:
    return share_cluster(
        RayConfig(**{name: value for name, value in settings.items() if name in RayConfig.model_fields}),
        nodes,
        num_trials,
        gpus_per_worker=settings.get("gpus_per_worker", 1.0),
        max_concurrent=settings.get("max_concurrent"),
    )


@pytest.mark.parametrize(
    ("cpus", "workers", "concurrent"), [(1, 1, 1), (2, 1, 2), (2, 2, 1), (4, 1, 4), (4, 2, 2), (5, 2, 2)]
)
def test_as_many_trials_as_the_cpus_hold(cpus: int, workers: int, concurrent: int) -> None:
    given_to_each = share([Node(cpus)], num_workers=workers)
    assert given_to_each.max_concurrent == concurrent
    assert given_to_each.cpus_per_worker == 1


def test_few_trials_share_all_cpus() -> None:
    assert share([Node(16)], num_trials=2).cpus_per_worker == 8
    assert share([Node(16)], num_trials=2, num_workers=2).cpus_per_worker == 4
    assert share([Node(16)], max_concurrent=4).cpus_per_worker == 4


def test_a_worker_never_spans_nodes() -> None:
    two = share([Node(4), Node(4)], num_trials=1)
    assert (two.max_concurrent, two.cpus_per_worker) == (1, 4)
    uneven = share([Node(3), Node(3)], cpus_per_worker=2)
    assert uneven.max_concurrent == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_workers": 4}, "4 workers (ray.num_workers) x 1 CPU need 4 CPUs, but the cluster has 2 CPUs"),
        (
            {"cpus_per_worker": 3},
            "1 worker (ray.num_workers) x 3 CPUs need 3 CPUs, but the cluster has 2 CPUs",
        ),
        (
            {"max_concurrent": 3},
            "search.max_concurrent=3 trials x 1 worker (ray.num_workers) x 1 CPU need 3 CPUs, "
            "but the cluster has 2 CPUs; lower search.max_concurrent",
        ),
        ({"use_gpu": True}, "need 1 CPUs and 1 GPUs, but the cluster has 2 CPUs and 0 GPUs"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_the_arithmetic(settings: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        share([Node(2)], **settings)
    assert message in str(caught.value)


def test_gpus_limit_trials_and_leave_room_for_the_kmeans_actor() -> None:
    whole = share([Node(32, 4)], num_workers=2)
    assert whole.max_concurrent == 2
    assert whole.worker_gpus == 0.9
    quarters = share([Node(32, 2)], gpus_per_worker=0.25)
    assert quarters.max_concurrent == 8
    assert quarters.worker_gpus == 0.225


def test_memory_lowers_the_default_but_refuses_nothing() -> None:
    assert share([Node(64, memory_gib=10.0)], num_workers=1).max_concurrent == 4
    assert share([Node(64, memory_gib=10.0)]).max_concurrent == 6
    assert share([Node(64, memory_gib=0.5)]).max_concurrent == 1
    assert share([Node(64, memory_gib=10.0)], max_concurrent=8).max_concurrent == 8


def test_two_workers_of_a_trial_may_not_meet_on_one_gpu() -> None:
    with pytest.raises(UserError, match="NCCL"):
        share([Node(32, 4)], num_workers=2, gpus_per_worker=0.5)


@given(
    gpus=st.integers(1, 8),
    workers=st.integers(1, 3),
    fraction=st.sampled_from([1.0, 0.5, 0.34, 0.3, 0.25, 0.2, 0.1]),
    trials=st.integers(1, 40),
)
def test_wherever_ray_puts_the_actors_every_worker_still_fits(
    gpus: int, workers: int, fraction: float, trials: int
) -> None:
    workers = workers if fraction == 1.0 else 1
    if workers > gpus:
        return
    placed = share([Node(1000, gpus)], num_trials=trials, num_workers=workers, gpus_per_worker=fraction)
    # The worst case: all actors on one GPU. In ten-thousandths, Ray's unit.
    actors = round(placed.max_concurrent * placed.actor_gpus * 10_000)
    worker = round(placed.worker_gpus * 10_000)
    fitting = (10_000 - actors) // worker + (gpus - 1) * (10_000 // worker)
    assert placed.actor_gpus > 0
    assert fitting >= placed.max_concurrent * workers


def test_trials_without_workers_train_in_their_own_process() -> None:
    assert share([Node(4)], num_workers=0).max_concurrent == 4


def test_only_a_gpu_or_a_wish_gives_trials_workers() -> None:
    assert share([Node(4)]).num_workers == 0
    assert share([Node(4)], num_workers=1).num_workers == 1
    assert share([Node(4, 1)]).num_workers == 1
    assert share([Node(4, 1)], use_gpu=False).num_workers == 0


def test_a_bucket_gives_trials_workers() -> None:
    assert _with_workers(RayConfig(), "/shared/runs/a").num_workers is None
    assert _with_workers(RayConfig(), "s3://bucket/runs/a").num_workers == 1
    assert _with_workers(RayConfig(num_workers=0), "s3://bucket/runs/a").num_workers == 0
