"""How many trials fit on a cluster at once, and what each may take."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from raydec.config import RayConfig
from raydec.errors import UserError
from raydec.search.config import SearchConfig
from raydec.search.plan import SearchPlan
from raydec.worker_count import worker_range

# Of a GPU's share, what training takes; the rest is split among the K-means actors of all trials, so that
# wherever Ray puts the actors, every worker still fits.
_TRAINING_SHARE = 0.9
# Ray counts GPUs in ten-thousandths.
_GPU_UNIT = 1e-4
# Resident memory of a trial's driver, controller and K-means actor, and of each of its workers, measured
# on the demo corpus, rounded up. Only lowers how many trials run by default.
_TRIAL_GIB, _WORKER_GIB = 1.5, 1.0


@dataclass(frozen=True)
class Node:
    """One machine of the cluster.

    Attributes:
        cpus: its cores, as Ray counts them.
        gpus: its GPUs.
        memory_gib: memory that Ray may give away; None when unknown.
    """

    cpus: float
    gpus: float = 0.0
    memory_gib: float | None = None


@dataclass(frozen=True)
class TrialShare:
    """What each trial gets.

    Attributes:
        num_workers: training workers; 0: the trial's own process trains.
        cpus_per_worker: cores, and threads, of each.
        use_gpu: whether workers train on GPUs.
        worker_gpus: share of a GPU for each worker.
        actor_gpus: share of a GPU for the trial's K-means actor.
        max_concurrent: trials at a time.
    """

    num_workers: int
    cpus_per_worker: int
    use_gpu: bool
    worker_gpus: float
    actor_gpus: float
    max_concurrent: int


def check_this_machine(plan: SearchPlan) -> None:
    """Before Ray takes its seconds to start here: can this machine hold even one trial?

    Says nothing when a cluster is to be joined: only Ray knows what that has.

    Raises:
        UserError: it cannot; with the arithmetic.
    """
    ray = plan.config.ray
    joins = (ray.address or os.environ.get("RAY_ADDRESS") or "local") != "local"
    is_running = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if not joins and not is_running:
        on_cpu = ray.model_copy(update={"use_gpu": False})
        node = Node(float(ray.num_cpus or os.cpu_count() or 1))
        share_cluster(on_cpu, plan.config.search, [node], plan.num_trials)


def share_cluster(ray: RayConfig, search: SearchConfig, nodes: Sequence[Node], num_trials: int) -> TrialShare:
    """Divide a cluster among trials.

    Drivers, controllers and K-means actors hold no CPU, so that only training workers count: a trial that
    was begun can always place its workers, and nothing waits for ever.

    Args:
        ray: workers per trial (the fewest, of a range) and cores per worker; unset: one worker, and an even
            share of the cores.
        search: GPU share and the wished number of trials at a time.
        nodes: the cluster.
        num_trials: trials in all; no more than these run at once.

    Raises:
        UserError: not even one trial, or not as many as asked for, can be placed; with the arithmetic.
    """
    use_gpu = uses_gpu(ray, nodes)
    num_workers = (worker_range(ray.num_workers) or (1, 1))[0]
    per_trial = max(1, num_workers)
    _check_sharing(num_workers, search, use_gpu)
    wished = min(num_trials, search.max_concurrent or num_trials)
    required = min(num_trials, search.max_concurrent) if search.max_concurrent else 1
    fitting = worker_slots(nodes, ray.cpus_per_worker or 1, use_gpu, search.gpus_per_worker) // per_trial
    if fitting < required:
        raise UserError(_arithmetic(ray, search, nodes, per_trial, required, use_gpu))
    concurrent = max(required, min(wished, fitting, _by_memory(nodes, num_workers)))
    workers = per_trial * concurrent
    cpus = ray.cpus_per_worker or even_cpus(nodes, workers, use_gpu, search.gpus_per_worker)
    actor_gpus = math.floor(search_share(search) * (1 - _TRAINING_SHARE) / concurrent / _GPU_UNIT) * _GPU_UNIT
    return TrialShare(
        num_workers=num_workers,
        cpus_per_worker=cpus,
        use_gpu=use_gpu,
        worker_gpus=round(_TRAINING_SHARE * search_share(search), 4),
        actor_gpus=round(actor_gpus, 4),
        max_concurrent=concurrent,
    )


def uses_gpu(ray: RayConfig, nodes: Sequence[Node]) -> bool:
    """Whether workers get GPUs; ``auto``: where there are any."""
    return sum(node.gpus for node in nodes) >= 1 if ray.use_gpu == "auto" else bool(ray.use_gpu)


def worker_slots(nodes: Sequence[Node], cpus: int, use_gpu: bool, gpus: float = 1.0) -> int:
    """Workers that the cluster can hold at once; a worker never spans nodes or GPUs."""
    by_node = (int(node.cpus) // cpus for node in nodes)
    if not use_gpu:
        return sum(by_node)
    per_gpu = math.floor(1.0 / gpus + 1e-9)
    return sum(min(slots, int(node.gpus) * per_gpu) for slots, node in zip(by_node, nodes, strict=True))


def even_cpus(nodes: Sequence[Node], num_workers: int, use_gpu: bool, gpus: float = 1.0) -> int:
    """The most cores per worker with which all of them still fit; 1 when they never do."""
    cpus = max(1, int(sum(node.cpus for node in nodes)) // num_workers)
    while cpus > 1 and worker_slots(nodes, cpus, use_gpu, gpus) < num_workers:
        cpus -= 1
    return cpus


def search_share(search: SearchConfig) -> float:
    """A worker's part of a GPU such that parts fill it: 0.3 becomes a third."""
    return 1.0 / math.floor(1.0 / search.gpus_per_worker + 1e-9)


def _check_sharing(num_workers: int, search: SearchConfig, use_gpu: bool) -> None:
    if use_gpu and num_workers > 1 and search.gpus_per_worker < 1:
        raise UserError(
            f"search.gpus_per_worker={search.gpus_per_worker:g} with ray.num_workers={num_workers}: two "
            "workers of one trial may meet on one GPU, which NCCL refuses; use ray.num_workers=1"
        )


def _by_memory(nodes: Sequence[Node], num_workers: int) -> int:
    known = [node.memory_gib for node in nodes if node.memory_gib is not None]
    if len(known) < len(nodes):
        return 2**31
    return max(1, int(sum(known) / (_TRIAL_GIB + _WORKER_GIB * num_workers)))


def _arithmetic(
    ray: RayConfig, search: SearchConfig, nodes: Sequence[Node], per_trial: int, trials: int, use_gpu: bool
) -> str:
    cpus = ray.cpus_per_worker or 1
    workers = trials * per_trial
    needs = f"{workers * cpus} CPUs"
    has = f"{sum(int(node.cpus) for node in nodes)} CPUs"
    if use_gpu:
        needs += f" and {workers * search_share(search):g} GPUs"
        has += f" and {sum(int(node.gpus) for node in nodes)} GPUs"
    several = f"search.max_concurrent={search.max_concurrent} trials x " if trials > 1 else ""
    whole = "" if len(nodes) == 1 else f" on {len(nodes)} nodes, none of which a worker may span"
    remedies = ["search.max_concurrent"] if trials > 1 else []
    remedies += ["ray.num_workers"] if per_trial > 1 else []
    remedies += ["ray.cpus_per_worker"] if cpus > 1 else []
    advice = f"lower {' or '.join(remedies)}" if remedies else "add nodes"
    if use_gpu:
        advice += " or set ray.use_gpu=false"
    trial = f"{per_trial} worker{'s' * (per_trial > 1)} (ray.num_workers) x {cpus} CPU{'s' * (cpus > 1)}"
    return f"{several}{trial} need {needs}, but the cluster has {has}{whole}; {advice}"
