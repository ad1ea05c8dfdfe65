"""What the host process should know before it trains: threads, and memory it may keep."""

from __future__ import annotations

import ctypes
import importlib
import sys
import threading
from collections.abc import Callable

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1

# A thread that waits for its siblings at the end of a parallel region spins by default; where another
# process wants the core, spinning made convolutions on two threads five times slower than on one.
OPENMP_ENVIRONMENT = {"GOMP_SPINCOUNT": "1000"}

WORKER_ENVIRONMENT = {
    **OPENMP_ENVIRONMENT,
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(_NEVER),
    "MALLOC_ARENA_MAX": "1",
}
"""Advice to OpenMP and the allocator, for a process that is yet to start.

Where training runs on a thread, as in Tune's trials, :func:`keep_freed_memory` is too late: glibc has given
it an arena by then, which hands blocks back, and a training step takes 1.7 times as long.
"""


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of handing them back to the system.

    A convolution's activations are tens of megabytes; by default each is mapped, zeroed page by page and
    unmapped again in every step, which costs a third of a training step on a CPU. No effect elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library: its allocator has other habits
        return
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def prepare_host(num_threads: int | None) -> None:
    """Set this process up to train: allocator, and as many threads as it was given cores."""
    import torch

    keep_freed_memory()
    # Batches have one shape, so it pays to try the algorithms once.
    torch.backends.cudnn.benchmark = True
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def import_ahead(module: str, and_then: Callable[[], object] | None = None) -> None:
    """Begin to import, on a thread, a module that will be needed soon, where this one waits for others.

    Args:
        module: its full name.
        and_then: is called afterwards; imports more, perhaps.
    """

    def work() -> None:
        importlib.import_module(module)
        if and_then is not None:
            and_then()

    threading.Thread(target=work, name="imports", daemon=True).start()
