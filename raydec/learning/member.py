"""The processes of a run."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A process of a run and its host.

    Attributes:
        role: ``rank 0`` and so on, or ``kmeans``.
        address: at which other machines reach its machine.
        host: name of its machine.
        pid: process id on that machine.
    """

    role: str
    address: str
    host: str
    pid: int

    @classmethod
    def here(cls, role: str, address: str = "127.0.0.1") -> Member:
        """This process."""
        return cls(role, address, socket.gethostname(), os.getpid())

    def __str__(self) -> str:
        return f"{self.role} (process {self.pid} on {self.address})"
