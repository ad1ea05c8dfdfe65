"""A cluster address is checked in seconds, where Ray would wait for minutes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest

from raydec.errors import UserError
from raydec.ray_runtime.session import _niceness, check_address


@pytest.fixture
def grpc_port() -> Iterator[int]:
    """A gRPC server without any method, like a Ray of another version without the probed method."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.fixture
def web_port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_grpc_server_may_be_ray(grpc_port: int) -> None:
    check_address(f"127.0.0.1:{grpc_port}")
    check_address(f"ray://127.0.0.1:{grpc_port}")


def test_a_web_server_is_not_ray(web_port: int) -> None:
    with pytest.raises(UserError, match="the server at this address is not Ray"):
        check_address(f"127.0.0.1:{web_port}")


def test_a_closed_port_and_a_bad_one_say_so() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="Connection refused"):
            check_address(f"127.0.0.1:{unused.getsockname()[1]}")
    with pytest.raises(UserError, match="'abc' is not a port"):
        check_address("127.0.0.1:abc")


@pytest.mark.parametrize(
    ("before", "asked", "given"),
    [(None, None, "0"), (None, 5, "5"), ("15", None, "15"), ("15", 0, "0"), ("15", 5, "5")],
)
def test_workers_are_as_nice_as_their_command_unless_told_otherwise(
    before: str | None, asked: int | None, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    if before is not None:
        monkeypatch.setenv("RAY_worker_niceness", before)
    with _niceness(asked):
        assert os.environ["RAY_worker_niceness"] == given
    assert os.environ.get("RAY_worker_niceness") == before
