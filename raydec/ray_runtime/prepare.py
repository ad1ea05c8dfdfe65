"""Run independent pieces of work on every CPU of a Ray cluster, or in this process."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from raydec.errors import UserError
from raydec.ray_runtime.session import start_ray

Item = TypeVar("Item")
Result = TypeVar("Result")

# Tasks take and give small objects only; 0.1 GiB is just above the least Ray accepts.
_OBJECT_STORE_GIB = 0.1
# The longest that an interrupt can stay unnoticed.
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

    ``on_done`` is called in this process, with each result as soon as it is there, in any order. When the
    work is interrupted, or one call fails, no new calls start; those that run may still finish.

    Args:
        function: importable on every node; it and its items and results must pickle.
        items: consumed lazily; no more of them are in flight than there are workers.
        num_workers: 0 runs everything in this process, without importing Ray; None means one worker per CPU
            of the cluster.
        address: cluster to join, as in :func:`raydec.ray_runtime.session.start_ray`.
        on_done: receives each result.

    Raises:
        UserError: one of ``function``'s, no cluster at ``address``, or a worker that died again and again.
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
    # Nothing is cancelled on the way out: a shard that finishes late is a shard kept, the tasks of a driver
    # that ends are ended by Ray, and cancelling has been seen to abort the driver (Ray 2.60).
    with _kept_interrupts() as check_interrupted:
        while running:
            ready, running = ray.wait(running, timeout=_WAIT_S)
            check_interrupted()
            for reference in ready:
                on_done(_result_of(reference))
                running.extend(task.remote(function, item) for item in itertools.islice(waiting, 1))


@contextmanager
def _kept_interrupts() -> Iterator[Callable[[], None]]:
    """Gives a function that raises the KeyboardInterrupt that was swallowed on its way here, if one was.

    Python raises it in whatever runs at that moment; in a callback of Ray's, or while an object is
    collected, it is printed and forgotten (Ray 2.60).
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
        raise UserError(
            f"a worker died and so did its replacements ({type(error).__name__}); most often memory ran out: "
            "use fewer workers and run the same command again, finished work is kept"
        ) from None
