"""A Ray of our own on this machine: only the processes that a single run has a use for, and those quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The API server: for the dashboard and `ray job`; Ray waits for it before it starts anything else.
_API_SERVER = "start_api_server"
# Asks a cloud for machines; here it only imports the autoscaler.
_AUTOSCALER = "start_monitor"
# Reads the workers' log files to print them in the driver, where that is asked for.
_LOG_MONITOR = "start_log_monitor"

# What every process would tell a dashboard once a second: half a percent of a core.
QUIET = {"task_events_report_interval_ms": 0, "enable_metrics_collection": False}


@contextmanager
def few_processes(*, log_monitor: bool) -> Iterator[None]:
    """For as long as the block runs, ``ray.init`` starts a node without the helpers above.

    They are three Python processes that import Ray while the run's own do: 2 of the 3.9 s that ``ray.init``
    takes on 2 cores, then 1.5% of a core for as long as the run lasts (Ray 2.60). ``ray.init`` has no
    argument for them, its node has a method for each; one that a version calls otherwise is started as ever.

    Args:
        log_monitor: keep it.
    """
    from ray._private.node import Node

    names = {_API_SERVER, _AUTOSCALER} if log_monitor else {_API_SERVER, _AUTOSCALER, _LOG_MONITOR}
    usual = {name: getattr(Node, name) for name in names if hasattr(Node, name)}
    for name in usual:
        setattr(Node, name, _start_nothing)
    try:
        yield
    finally:
        for name, method in usual.items():
            setattr(Node, name, method)


def _start_nothing(*_: Any, **__: Any) -> None:
    pass
