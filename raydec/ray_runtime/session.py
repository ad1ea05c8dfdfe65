"""Starts or joins Ray once, with little output, and reports quickly if there is no cluster to join."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from raydec.errors import UserError
from raydec.placement import Node
from raydec.ray_runtime import fast_start
from raydec.verbosity import verbosity

logger = logging.getLogger(__name__)

LOCAL_ADDRESS = "local"
# Environment variable that is read by the process that starts Ray's workers.
_NICENESS = "RAY_worker_niceness"
_CONNECT_TIMEOUT_S = 5.0
# The method does not matter: even an error shows that the server speaks gRPC.
_PROBE_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
# Part of gRPC's error if a web server, for instance a proxy, answers.
_NOT_GRPC = "http2 header"


def start_ray(
    address: str | None,
    num_cpus: int | None = None,
    object_store_gib: float | None = None,
    *,
    dashboard: bool = False,
    worker_environment: Mapping[str, str] | None = None,
    niceness: int | None = None,
) -> None:
    """Connect this process to Ray; does nothing if it is connected already.

    Args:
        address: cluster to join (``host:port``, ``ray://host:port``, ``auto``) or ``local``; default: the
            environment variable ``RAY_ADDRESS``, else a local Ray on this machine.
        num_cpus: CPUs of a local Ray; None means all. Ignored for a cluster.
        object_store_gib: object store of a local Ray, in GiB; None means Ray's default.
        dashboard: whether a local Ray has a dashboard. Without it, Ray starts three seconds faster, runs a
            dozen fewer processes and keeps no metrics; ``ray status`` and ``ray list`` do not work, and the
            placement-group cleaner of Ray Train, which runs in searches, only logs a warning (Ray 2.60).
        worker_environment: environment variables of all of Ray's worker processes.
        niceness: of a local Ray's workers, added to that of this process; default: ``RAY_worker_niceness``,
            else 0. With Ray's own default of 15, training gets only a thirtieth of a core that an ordinary
            process uses as well.

    Raises:
        UserError: nothing that speaks Ray's protocol answers at the address (within 10 s), or Ray refuses
            to start or to be joined; the message carries Ray's reason.
    """
    import ray

    if ray.is_initialized():
        return
    target = address or os.environ.get("RAY_ADDRESS") or LOCAL_ADDRESS
    options: dict[str, Any] = {}
    if worker_environment:
        options["runtime_env"] = {"env_vars": dict(worker_environment)}
    if target != LOCAL_ADDRESS:
        _refuse_unreachable(target)
        _connect(target, f"join the Ray cluster at {target}", **options)
        return
    limits = options | _local_limits(num_cpus, object_store_gib)
    limits["include_dashboard"] = dashboard
    with _niceness(niceness):
        try:
            _connect(target, "start a local Ray", **limits)
        except _SlowStartError:
            logger.warning(
                "Ray did not start within 30 s, perhaps because this machine is busy; retrying once"
            )
            _connect(target, "start a local Ray", **limits)


@contextmanager
def _niceness(niceness: int | None) -> Iterator[None]:
    """Set the niceness of the workers of a Ray that is started within the block."""
    before = os.environ.get(_NICENESS)
    if niceness is not None or before is None:
        os.environ[_NICENESS] = str(niceness or 0)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NICENESS]
        else:
            os.environ[_NICENESS] = before


class _SlowStartError(UserError):
    """Ray's processes did not start within 30 s, as may happen on a busy machine."""


def _connect(target: str, action: str, **limits: Any) -> None:
    import ray

    try:
        is_loud = verbosity() > 0
        level = logging.INFO if is_loud else logging.ERROR
        with ExitStack() as stack:
            # Older releases give everybody a tip about an environment variable.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
            if limits.get("include_dashboard") is False and fast_start.is_usable("node"):
                from raydec.ray_runtime.fast_start.node import QUIET, few_processes

                stack.enter_context(few_processes(log_monitor=is_loud))
                limits = limits | QUIET
            ray.init(target, log_to_driver=is_loud, logging_level=level, **limits)
    except Exception as error:  # Ray also raises plain Exceptions here
        kind = _SlowStartError if "timed out during startup" in str(error) else UserError
        raise kind(f"cannot {action}: {_first_line(error)}") from None


def check_address(address: str | None) -> None:
    """Check, without importing Ray, that the cluster that :func:`start_ray` would join can be reached.

    Raises:
        UserError: nothing that speaks Ray's protocol answers at the address.
    """
    target = address or os.environ.get("RAY_ADDRESS") or LOCAL_ADDRESS
    if target != LOCAL_ADDRESS:
        _refuse_unreachable(target)


def _local_limits(num_cpus: int | None, object_store_gib: float | None) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if num_cpus is not None:
        limits["num_cpus"] = num_cpus
    if object_store_gib is not None:
        limits["object_store_memory"] = int(object_store_gib * 2**30)
    return limits


def _refuse_unreachable(address: str) -> None:
    """Refuse an address without a Ray cluster; Ray itself would wait for at least 40 s and print logs."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator:
        return  # "auto" and anything else that is not host:port: Ray answers immediately
    try:
        problem = _connection_problem(host.strip("[]"), int(port))
    except ValueError:
        problem = f"{port!r} is not a port"
    if problem:
        raise UserError(
            f"no Ray cluster at {address}: {problem}; check ray.address, --address or RAY_ADDRESS, "
            "or leave them unset to use this machine alone"
        )


def _connection_problem(host: str, port: int) -> str | None:
    """Why no gRPC server can be reached; None if one answers or, with TLS, if the port is open."""
    import grpc

    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0", "false"):
        return None
    with grpc.insecure_channel(f"{host}:{port}" if ":" not in host else f"[{host}]:{port}") as channel:
        try:
            channel.unary_unary(_PROBE_METHOD)(b"", timeout=_CONNECT_TIMEOUT_S)
        except grpc.RpcError as error:
            silent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if error.code() in silent or _NOT_GRPC in (error.details() or ""):
                return "the server at this address is not Ray"
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def explained_death(error: BaseException) -> UserError:
    """What to say if a process died repeatedly, whose work is kept in parts."""
    return UserError(
        f"a worker and its replacements died ({type(error).__name__}), probably because memory ran out; "
        "use fewer workers and run the same command again: finished work is kept"
    )


def cluster_nodes() -> list[Node]:
    """The live nodes of the cluster that this process is connected to."""
    import ray

    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            memory_gib = resources.get("memory", 0.0) / 2**30
            nodes.append(Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0), memory_gib or None))
    return nodes


def promised_nodes() -> list[Node]:
    """The nodes of the cluster at its full size if an autoscaler defines it; else none.

    Ray has no public API for this, so the result is empty without :mod:`fast_start`.
    """
    if not fast_start.is_usable("node"):
        return []
    from raydec.ray_runtime.fast_start.node import promised_nodes as promised

    return promised()
