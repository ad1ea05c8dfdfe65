"""Runs independent tasks on every CPU of a Ray cluster, or in this process."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from raydec.errors import UserError
from raydec.ray_runtime.session import explained_death, start_ray

Item = TypeVar("Item")
Result = TypeVar("Result")

# Tasks exchange only small objects; 0.1 GiB is slightly more than Ray's minimum.
_OBJECT_STORE_GIB = 0.1
# The longest delay before an interrupt is noticed.
_WAIT_S = 0.5


def run_shards(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int | None,
    address: str | None = None,
    on_done: Callable[[Result], None],
) -> None:
    """Call ``function(item)`` for every item, ``num_workers`` at a time, one CPU and one torch thread each.

    ``on_done`` is called in this process with each result as soon as it is available, in any order. If the
    work is interrupted, or a call fails, no new calls start; running calls may still finish.

    Args:
        function: importable on every node; it and its items and results must be picklable.
        items: consumed lazily; at most one per worker is being processed.
        num_workers: 0 runs everything in this process, without importing Ray; None means one worker per CPU
            of the cluster.
        address: cluster to join, as in :func:`raydec.ray_runtime.session.start_ray`.
        on_done: receives each result.

    Raises:
        UserError: raised by ``function``, no cluster at ``address``, or a worker that died repeatedly.
    """
    if num_workers == 0:
        for item in items:
            on_done(function(item))
        return
    import ray

    start_ray(address, num_cpus=num_workers, object_store_gib=_OBJECT_STORE_GIB)
    limit = num_workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
    task: Any = ray.remote(num_cpus=1, max_retries=2)(_call_on_one_thread)
    waiting = iter(items)
    running = [task.remote(function, item) for item in itertools.islice(waiting, limit)]
    # Running tasks are not cancelled on exit: a shard that finishes late is kept, Ray ends the tasks of a
    # driver that exits, and cancelling sometimes aborted the driver (Ray 2.60).
    with _kept_interrupts() as check_interrupted:
        while running:
            ready, running = ray.wait(running, timeout=_WAIT_S)
            check_interrupted()
            for reference in ready:
                on_done(_result_of(reference))
                running.extend(task.remote(function, item) for item in itertools.islice(waiting, 1))


@contextmanager
def _kept_interrupts() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if an interrupt was swallowed before.

    Python raises KeyboardInterrupt in the code that is running; in a callback of Ray, or in a finalizer, it
    is only printed (Ray 2.60).
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    interrupted = False
    before = signal.getsignal(signal.SIGINT)

    def keep(number: int, frame: Any) -> None:
        nonlocal interrupted
        interrupted = True
        if callable(before):
            before(number, frame)

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    if callable(before):
        signal.signal(signal.SIGINT, keep)
    try:
        yield check
    finally:
        if callable(before):
            signal.signal(signal.SIGINT, before)


def _call_on_one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    import torch

    torch.set_num_threads(1)
    return function(item)


def _result_of(reference: Any) -> Any:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except RayError as error:
        raise explained_death(error) from None
