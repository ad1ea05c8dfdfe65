"""Resources of runs and trials on a cluster, and how many trials fit at once."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from raydec.config import RayConfig
from raydec.errors import UserError
from raydec.worker_count import worker_range

# The K-means actor shares a GPU with a training worker. In a search, the actors of all trials together take
# no more than the rest of one GPU, so that every worker fits wherever Ray places the actors.
WORKER_GPU_SHARE, ACTOR_GPU_SHARE = 0.9, 0.1
# Ray counts GPUs in ten-thousandths.
_GPU_UNIT = 1e-4
# Resident memory of a trial's driver, controller and K-means actor, and of each of its workers, measured
# on the demo corpus and rounded up. Used only to limit the default number of concurrent trials.
_TRIAL_GIB, _WORKER_GIB = 1.5, 1.0


@dataclass(frozen=True)
class Node:
    """One machine of the cluster.

    Attributes:
        cpus: number of cores that Ray manages.
        gpus: number of GPUs.
        memory_gib: memory that Ray manages; None if unknown.
    """

    cpus: float
    gpus: float = 0.0
    memory_gib: float | None = None


@dataclass(frozen=True)
class Placement:
    """Resources of a run, or of each trial of a search.

    Attributes:
        num_workers: training workers, or their minimum and maximum; 0: the calling process trains.
        cpus_per_worker: cores, and threads, of each worker.
        use_gpu: whether workers train on GPUs.
        worker_gpus: share of a GPU for each worker.
        actor_gpus: share of a GPU for the K-means actor.
        max_concurrent: number of trials at a time.
    """

    num_workers: int | tuple[int, int]
    cpus_per_worker: int
    use_gpu: bool
    worker_gpus: float = WORKER_GPU_SHARE
    actor_gpus: float = ACTOR_GPU_SHARE
    max_concurrent: int = 1


def place(config: RayConfig, nodes: Sequence[Node]) -> Placement:
    """Determine the resources of a run, and refuse more than the cluster has.

    Args:
        config: the ray section.
        nodes: the cluster; a worker never spans two nodes.

    Raises:
        UserError: there are more workers than cores or GPUs; the message shows the calculation.
    """
    num_cpus, num_gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    use_gpu = uses_gpu(config, nodes)
    fewest, most = worker_range(config.num_workers) or (max(1, int(num_gpus)) if use_gpu else 1,) * 2
    if use_gpu and fewest > num_gpus:
        raise UserError(
            f"ray.num_workers={fewest} with a GPU each, but the cluster has {num_gpus:g} GPUs; "
            f"lower ray.num_workers to {int(num_gpus)} or set ray.use_gpu=false"
        )
    cpus = config.cpus_per_worker or even_cpus(nodes, max(most, 1), use_gpu)
    if worker_slots(nodes, cpus, use_gpu) < fewest:
        spread = f" on {len(nodes)} nodes (no worker can span nodes)" if len(nodes) > 1 else ""
        raise UserError(
            f"ray.num_workers={fewest} x {cpus} CPUs = {fewest * cpus} CPUs, but the cluster has "
            f"{num_cpus:g}{spread}; lower ray.num_workers or ray.cpus_per_worker"
        )
    return Placement(fewest if fewest == most else (fewest, most), cpus, use_gpu)


def check_this_machine(
    ray: RayConfig, num_trials: int, *, gpus_per_worker: float, max_concurrent: int | None
) -> None:
    """Check that at least one trial fits on this machine, before Ray is started, which takes seconds.

    Does nothing if a cluster will be joined, because its size is not known without Ray.

    Raises:
        UserError: it cannot; the message shows the calculation.
    """
    joins = (ray.address or os.environ.get("RAY_ADDRESS") or "local") != "local"
    is_running = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if not joins and not is_running:
        on_cpu = ray.model_copy(update={"use_gpu": False})
        node = Node(float(ray.num_cpus or os.cpu_count() or 1))
        share_cluster(
            on_cpu, [node], num_trials, gpus_per_worker=gpus_per_worker, max_concurrent=max_concurrent
        )


def share_cluster(
    ray: RayConfig,
    nodes: Sequence[Node],
    num_trials: int,
    *,
    gpus_per_worker: float,
    max_concurrent: int | None,
) -> Placement:
    """Divide a cluster among trials.

    Drivers, controllers and K-means actors reserve no CPU, so only training workers count. Therefore a trial
    that has started can always place its workers, and there is no deadlock.

    Args:
        ray: workers per trial (of a range, the minimum) and cores per worker. Unset, these are one worker if
            there are GPUs, otherwise none (the trial's own process trains); and an even share of the cores.
        nodes: the cluster.
        num_trials: total number of trials.
        gpus_per_worker: share of a GPU for each worker.
        max_concurrent: requested number of trials at a time; None: as many as fit.

    Raises:
        UserError: not even one trial, or fewer than requested, can be placed; the message shows the
            calculation.
    """
    use_gpu = uses_gpu(ray, nodes)
    num_workers = (worker_range(ray.num_workers) or (1 if use_gpu else 0,))[0]
    per_trial = max(1, num_workers)
    _check_sharing(num_workers, gpus_per_worker, use_gpu)
    requested = min(num_trials, max_concurrent or num_trials)
    required = min(num_trials, max_concurrent) if max_concurrent else 1
    fitting = worker_slots(nodes, ray.cpus_per_worker or 1, use_gpu, gpus_per_worker) // per_trial
    if fitting < required:
        gpus = gpu_share(gpus_per_worker) if use_gpu else 0.0
        raise UserError(_arithmetic(ray, nodes, per_trial, required, gpus))
    concurrent = max(required, min(requested, fitting, _by_memory(nodes, num_workers)))
    workers = per_trial * concurrent
    cpus = ray.cpus_per_worker or even_cpus(nodes, workers, use_gpu, gpus_per_worker)
    share = gpu_share(gpus_per_worker)
    actor_gpus = math.floor(share * (1 - WORKER_GPU_SHARE) / concurrent / _GPU_UNIT) * _GPU_UNIT
    return Placement(
        num_workers=num_workers,
        cpus_per_worker=cpus,
        use_gpu=use_gpu,
        worker_gpus=round(WORKER_GPU_SHARE * share, 4),
        actor_gpus=round(actor_gpus, 4),
        max_concurrent=concurrent,
    )


def uses_gpu(ray: RayConfig, nodes: Sequence[Node]) -> bool:
    """Whether workers get GPUs; ``auto``: if there are any."""
    return sum(node.gpus for node in nodes) >= 1 if ray.use_gpu == "auto" else bool(ray.use_gpu)


def worker_slots(nodes: Sequence[Node], cpus: int, use_gpu: bool, gpus: float = 1.0) -> int:
    """Number of workers that the cluster can hold at once; a worker never spans nodes or GPUs."""
    by_node = (int(node.cpus) // cpus for node in nodes)
    if not use_gpu:
        return sum(by_node)
    per_gpu = math.floor(1.0 / gpus + 1e-9)
    return sum(min(slots, int(node.gpus) * per_gpu) for slots, node in zip(by_node, nodes, strict=True))


def even_cpus(nodes: Sequence[Node], num_workers: int, use_gpu: bool, gpus: float = 1.0) -> int:
    """The largest number of cores per worker with which all workers fit; 1 if they never do."""
    cpus = max(1, int(sum(node.cpus for node in nodes)) // num_workers)
    while cpus > 1 and worker_slots(nodes, cpus, use_gpu, gpus) < num_workers:
        cpus -= 1
    return cpus


def gpu_share(gpus_per_worker: float) -> float:
    """A worker's share of a GPU, rounded up such that equal shares fill it: 0.3 becomes a third."""
    return 1.0 / math.floor(1.0 / gpus_per_worker + 1e-9)


def _check_sharing(num_workers: int, gpus_per_worker: float, use_gpu: bool) -> None:
    if use_gpu and num_workers > 1 and gpus_per_worker < 1:
        raise UserError(
            f"search.gpus_per_worker={gpus_per_worker:g} with ray.num_workers={num_workers}: two "
            "workers of one trial may share one GPU, which NCCL refuses; use ray.num_workers=1"
        )


def _by_memory(nodes: Sequence[Node], num_workers: int) -> int:
    known = [node.memory_gib for node in nodes if node.memory_gib is not None]
    if len(known) < len(nodes):
        return 2**31
    return max(1, int(sum(known) / (_TRIAL_GIB + _WORKER_GIB * num_workers)))


def _arithmetic(ray: RayConfig, nodes: Sequence[Node], per_trial: int, trials: int, gpus: float) -> str:
    cpus = ray.cpus_per_worker or 1
    workers = trials * per_trial
    needs = f"{workers * cpus} CPUs"
    has = f"{sum(int(node.cpus) for node in nodes)} CPUs"
    if gpus:
        needs += f" and {workers * gpus:g} GPUs"
        has += f" and {sum(int(node.gpus) for node in nodes)} GPUs"
    several = f"search.max_concurrent={trials} trials x " if trials > 1 else ""
    spread = f" on {len(nodes)} nodes (no worker can span nodes)" if len(nodes) > 1 else ""
    remedies = ["search.max_concurrent"] if trials > 1 else []
    remedies += ["ray.num_workers"] if per_trial > 1 else []
    remedies += ["ray.cpus_per_worker"] if cpus > 1 else []
    advice = f"lower {' or '.join(remedies)}" if remedies else "add nodes"
    if gpus:
        advice += " or set ray.use_gpu=false"
    trial = f"{per_trial} worker{'s' * (per_trial > 1)} (ray.num_workers) x {cpus} CPU{'s' * (cpus > 1)}"
    return f"{several}{trial} need {needs}, but the cluster has {has}{spread}; {advice}"
