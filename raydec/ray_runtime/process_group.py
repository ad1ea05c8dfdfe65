"""Sets up torch's process group, which connects the training workers, from Ray Train's controller.

The controller unpickles the classes of this module and does not need torch, whose import would cost 1.5 s of
every start and half a gigabyte per run. Therefore torch is imported only in functions that run in a worker.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

logger = logging.getLogger(__name__)

_LEAVE_S = 30
_INTERFACE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


@dataclass
class ProcessGroupConfig(BackendConfig):
    """Like :class:`ray.train.torch.TorchConfig`, without torch in the controller; sets gloo's address.

    By default gloo listens on the address to which the host name resolves. On many machines this is
    127.0.1.1, or fails, and workers on other machines time out. Here it listens on the node's address.

    Attributes:
        backend: ``nccl`` or ``gloo``.
        timeout_s: seconds that a collective may wait.
    """

    backend: str = "gloo"
    timeout_s: int = 1800

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that sets up the group."""
        return _ProcessGroupBackend

    @property
    def train_func_context(self) -> Any:
        """Context manager that sets a worker's GPU; see :class:`ray.train.torch.TorchConfig`."""
        return _on_own_gpu


@contextmanager
def _on_own_gpu() -> Iterator[None]:
    import ray.train.torch
    import torch

    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    yield


class _ProcessGroupBackend(Backend):
    # NCCL requires that workers on one machine see each other's GPUs.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        assert isinstance(backend_config, ProcessGroupConfig)
        name_interfaces(worker_group)
        address, port = worker_group.execute_single(0, _free_address)
        joining: list[Any] = [
            worker_group.execute_single_async(
                number, join_group, backend_config, number, len(worker_group), address, port
            )
            for number in range(len(worker_group))
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        leaving: list[Any] = worker_group.execute_async(leave_group, len(worker_group) > 1)
        done, late = ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_S)
        if late:
            logger.warning("%d workers have not left their group in %d s", len(late), _LEAVE_S)
        ray.get(done)


def _free_address() -> tuple[str, int]:
    """This node's address and a free port; runs in a worker."""
    address = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind(("", 0))
        return address, probe.getsockname()[1]


def join_group(config: ProcessGroupConfig, rank: int, world_size: int, address: str, port: int) -> None:
    """Join torch's process group; runs in a worker."""
    import torch.distributed as dist

    # An NCCL collective that times out ends its process, so that Ray Train restarts the group.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    timeout = timedelta(seconds=config.timeout_s)
    dist.init_process_group(config.backend, rank=rank, world_size=world_size, timeout=timeout)


def leave_group(is_group: bool) -> None:
    """Leave the group and free cached GPU memory; runs in a worker."""
    import ray.train.torch
    import torch

    if is_group and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def name_interfaces(worker_group: Any) -> None:
    """Set gloo's network interface on each node, if there are several."""
    addresses = worker_group.execute(ray.util.get_node_ip_address)
    if len(set(addresses)) > 1:
        worker_group.execute(name_interface)


def name_interface() -> str | None:
    """Set gloo's network interface to that of this node's address, unless the user has set one."""
    found = os.environ.get(_INTERFACE) or interface_of(ray.util.get_node_ip_address())
    if found is not None:
        os.environ[_INTERFACE] = found
    return found


def interface_of(address: str) -> str | None:
    """Name of the network interface with an IPv4 address; None if there is none, or not on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # it has no IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
