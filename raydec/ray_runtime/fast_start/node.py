"""A local Ray with only the processes that a single run needs, and the full size of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private.node import Node as RayNode
from ray._private.state import state

from raydec.placement import Node

# The API server, for the dashboard and `ray job`; Ray waits for it before it starts anything else.
_API_SERVER = "start_api_server"
# Requests machines from a cloud; a local Ray has no use for it.
_AUTOSCALER = "start_monitor"
# Forwards the workers' log files to the driver, if requested.
_LOG_MONITOR = "start_log_monitor"
_MANY_NODES = 1000

# By default, every process sends events and metrics to a dashboard once a second, which takes 0.5% of a core.
QUIET: dict[str, Any] = {
    "_system_config": {"task_events_report_interval_ms": 0, "enable_metrics_collection": False}
}
"""Arguments of ``ray.init`` for a local Ray without a dashboard."""


@contextmanager
def few_processes(*, log_monitor: bool) -> Iterator[None]:
    """Within the block, ``ray.init`` starts a node without the helpers above.

    They are three Python processes that import Ray at the same time as those of the run. They account for 2
    of the 3.9 s that ``ray.init`` takes on 2 cores, and for 1.5% of a core during the whole run (Ray 2.60).
    ``ray.init`` has no argument that turns them off, but its node has a method that starts each of them.

    Args:
        log_monitor: whether to start the log monitor.
    """
    names = {_API_SERVER, _AUTOSCALER} if log_monitor else {_API_SERVER, _AUTOSCALER, _LOG_MONITOR}
    usual = {name: getattr(RayNode, name) for name in names}
    for name in usual:
        setattr(RayNode, name, _start_nothing)
    try:
        yield
    finally:
        for name, method in usual.items():
            setattr(RayNode, name, method)


def _start_nothing(*_: Any, **__: Any) -> None:
    pass


def promised_nodes() -> list[Node]:
    """The nodes of the cluster at its full size if an autoscaler defines it; else none."""
    config = state.get_cluster_config()
    if config is None:
        return []
    return [
        Node(float(group.resources.get("CPU", 0)), float(group.resources.get("GPU", 0)))
        for group in config.node_group_configs
        for _ in range(_MANY_NODES if group.max_count < 0 else min(group.max_count, _MANY_NODES))
    ]
