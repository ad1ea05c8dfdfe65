"""How the training workers find each other: torch's process group, set up by Ray Train."""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass

import ray
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

_INTERFACE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


@dataclass
class NodeAddressTorchConfig(TorchConfig):
    """Ray Train's set-up, with gloo listening where Ray says that the machine can be reached.

    Left to itself gloo takes the address that the machine's own name resolves to. On many machines that is
    127.0.1.1, or nothing, and workers on other machines wait for it until they time out.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """See :class:`ray.train.torch.TorchConfig`."""
        return _NodeAddressBackend


class _NodeAddressBackend(_TorchBackend):
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: BackendConfig) -> None:
        addresses = worker_group.execute(ray.util.get_node_ip_address)
        if len(set(addresses)) > 1:
            worker_group.execute(name_interface)
        super().on_start(worker_group, backend_config)  # type: ignore[arg-type]


def name_interface() -> str | None:
    """Tell gloo which network interface has this node's address; a choice of the user's stands."""
    found = os.environ.get(_INTERFACE) or interface_of(ray.util.get_node_ip_address())
    if found is not None:
        os.environ[_INTERFACE] = found
    return found


def interface_of(address: str) -> str | None:
    """Name of the network interface that has an IPv4 address; None when none has, or not on Linux."""
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
