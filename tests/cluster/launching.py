"""The commands of docs/cluster.md for a cluster: up, submit, watch, down."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hosts import PretendHosts

ROOT = Path(__file__).parents[2]
_TOKEN_ON_HOSTS = "/root/raydec_token"


def derived(shipped: str, addresses: list[str], key: Path, token: Path, storage: Path) -> dict[str, Any]:
    """The shipped cluster file for machines one owns: docs/cluster.md names the same changes.

    Commands, authentication and limits stay as shipped. There is no network to install from, so the set-up
    command only checks what is installed; what the container's options set is exported instead.
    """
    config = yaml.safe_load(shipped)
    options = [option for option in config.pop("docker")["run_options"] if option.startswith("-e ")]
    variables = dict(option.removeprefix("-e ").split("=", 1) for option in options)
    (mounted,) = config["file_mounts"]
    assert variables["RAY_AUTH_TOKEN_PATH"] == mounted
    variables |= {"RAY_AUTH_TOKEN_PATH": _TOKEN_ON_HOSTS, "RAYDEC_STORAGE": str(storage)}
    exports = " ".join(f"{name}={value}" for name, value in variables.items())
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[commands] = [f"export {exports}; {command}" for command in config[commands]]
    for cloud_only in ("available_node_types", "head_node_type", "upscaling_speed", "idle_timeout_minutes"):
        del config[cloud_only]
    config["provider"] = {"type": "local", "head_ip": addresses[0], "worker_ips": addresses[1:]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    config["min_workers"] = config["max_workers"] = len(addresses) - 1
    config["file_mounts"] = {_TOKEN_ON_HOSTS: str(token)}
    config["setup_commands"] = ['python -c "import raydec"']
    return config


class Launcher:
    """The user's machine, with the cluster file, the token, and ssh to the hosts.

    Args:
        folder: its home and temporary files.
        hosts: the machines of the cluster.
        storage: the folder that all hosts share, for results.
    """

    def __init__(self, folder: Path, hosts: PretendHosts, storage: Path) -> None:
        self._hosts = hosts
        self._folder = folder
        (folder / "tmp").mkdir(parents=True)
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RAY_")
        } | {
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "RAY_TMPDIR": str(folder / "tmp"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_UP_enable_autoscaler_v2": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        config = derived((ROOT / "cluster.yaml").read_text(), hosts.addresses, hosts.key, token, storage)
        self.cluster_file = folder / "cluster.yaml"
        self.cluster_file.write_text(yaml.safe_dump(config))
        self._head = hosts.addresses[0]

    def up(self, patience_s: float = 420.0) -> None:
        """``ray up``, then wait until every host has joined."""
        self._ray("up", "-y", "--no-config-cache", str(self.cluster_file))
        deadline = time.monotonic() + patience_s
        while len(joined := self.joined()) < len(self._hosts.addresses):
            assert time.monotonic() < deadline, f"only {joined} joined\n{self.status()}\n{self.monitor_log()}"
            time.sleep(1)

    def down(self) -> None:
        """``ray down``; it ends Ray on the head, and the workers notice."""
        self._ray("down", "-y", str(self.cluster_file))

    def status(self) -> str:
        """``ray status`` on the head."""
        return self.on_head("ray status 2>&1")

    def monitor_log(self) -> str:
        """The end of what the autoscaler wrote."""
        return self.on_head("tail -n 60 /tmp/ray/session_latest/logs/monitor.*")

    def joined(self) -> list[str]:
        """Addresses of the hosts that are part of the cluster now."""
        code = (
            "import ray; ray.init('auto', log_to_driver=False, logging_level='ERROR'); "
            "print(*[n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']])"
        )
        return self.on_head(f'python -c "{code}" 2>/dev/null').split()

    def on_head(self, command: str) -> str:
        """Run a command on the head as one of the cluster."""
        token = f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={_TOKEN_ON_HOSTS}; "
        return self._hosts.ssh(self._head, token + command, check=False)

    @contextmanager
    def dashboard(self) -> Iterator[str]:
        """``ray dashboard``, for as long as the block runs; gives the address for ``ray job``."""
        port = _free_port()
        command = ["ray", "dashboard", "--no-config-cache", "--port", str(port), str(self.cluster_file)]
        log = (self._folder / "dashboard.log").open("wb")
        forwarding = subprocess.Popen(
            [f"{sys.prefix}/bin/{command[0]}", *command[1:]],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_for_answer(address)
            yield address
        finally:
            os.killpg(forwarding.pid, signal.SIGTERM)
            forwarding.wait(30)

    def submit(self, address: str, folder: Path, *command: str, job: str) -> str:
        """``ray job submit`` without waiting; gives the job's id."""
        self._ray(
            *("job", "submit", "--address", address, "--submission-id", job, "--no-wait"),
            *("--working-dir", str(folder), "--", *command),
        )
        return job

    def job_status(self, address: str, job: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        printed = self._ray("job", "status", "--address", address, job).upper()
        words = ("SUCCEEDED", "FAILED", "STOPPED", "RUNNING", "PENDING")
        return next(word for word in words if word in printed)

    def job_logs(self, address: str, job: str) -> str:
        """What the job printed so far."""
        return self._ray("job", "logs", "--address", address, job)

    def _ray(self, *arguments: str) -> str:
        done = subprocess.run(
            [f"{sys.prefix}/bin/ray", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=600,
        )
        assert done.returncode == 0, f"ray {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@dataclass(frozen=True)
class ClusterOfThree:
    """A running cluster, the store to train on, and the folder that all hosts share."""

    hosts: PretendHosts
    launcher: Launcher
    store: Path
    shared: Path


def _wait_for_answer(address: str) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).read()
            return
        except urllib.error.HTTPError:
            return  # it responds, but requires the token
        except OSError:
            assert time.monotonic() < deadline, f"nothing answers at {address}"
            time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
