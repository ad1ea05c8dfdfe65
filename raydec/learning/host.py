"""Settings of the host process for training: threads, and the memory allocator."""

from __future__ import annotations

import ctypes
import importlib
import sys
import threading
from collections.abc import Callable

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1

# By default, a thread that waits at the end of a parallel region spins. If another process needs the core,
# spinning made convolutions on two threads five times slower than on one.
OPENMP_ENVIRONMENT = {"GOMP_SPINCOUNT": "1000"}

WORKER_ENVIRONMENT = {
    **OPENMP_ENVIRONMENT,
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(_NEVER),
    "MALLOC_ARENA_MAX": "1",
}
"""Environment variables for OpenMP and the allocator, to be set before a process starts.

If training runs on a thread, as in Tune's trials, :func:`keep_freed_memory` comes too late: the thread has
its own glibc arena by then, which returns blocks to the system, and a training step takes 1.7 times as long.
"""


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of returning them to the system; no effect on other systems.

    A convolution's activations are tens of megabytes; by default each is mapped, zeroed page by page and
    unmapped again in every step, which takes a third of a training step on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def prepare_host(num_threads: int | None) -> None:
    """Prepare this process for training: allocator and number of threads."""
    import torch

    keep_freed_memory()
    # All batches have the same shape, so it is worthwhile to benchmark the algorithms once.
    torch.backends.cudnn.benchmark = True
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def import_ahead(module: str, and_then: Callable[[], object] | None = None) -> None:
    """Import a module that will be needed soon on a background thread.

    Args:
        module: its full name.
        and_then: called afterwards, for example for further imports.
    """

    def work() -> None:
        importlib.import_module(module)
        if and_then is not None:
            and_then()

    threading.Thread(target=work, name="imports", daemon=True).start()
