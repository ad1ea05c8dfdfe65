"""Hosts that share one kernel: each has its own address, processes, home, ``/tmp``, ``/dev/shm`` and sshd.

A host is a network namespace on a bridge, with a process that is the first in its own mount, host name, IPC
and process namespaces. All processes of a host end with that process, and its mounts with the namespace. Only
root can create them.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import raydec

PACKAGES = {
    "ip": "iproute2",
    "ss": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
    "mount": "mount",
    "ps": "procps",
}
"""Command to the Debian package that has it."""

NUM_HOSTS = 3
_HOME = Path(pwd.getpwuid(0).pw_dir)
_SSH_OPTIONS = [
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10"),
]


def why_not() -> str | None:
    """What this machine lacks for running three hosts; None if nothing."""
    missing = sorted(
        {package for command, package in PACKAGES.items() if shutil.which(command, path=_PATH) is None}
    )
    if missing:
        return f"needs the Debian packages {' '.join(missing)}"
    probe = f"rdprobe{os.getpid() % 100000}"
    for command in (["ip", "link", "add", probe, "type", "bridge"], ["ip", "link", "del", probe]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"cannot make network bridges here: {done.stderr.strip()}"
    done = subprocess.run(
        ["unshare", "-m", "-u", "-i", "-p", "-n", "--fork", "true"], capture_output=True, text=True
    )
    return f"cannot make namespaces here: {done.stderr.strip()}" if done.returncode else None


_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


class PretendHosts:
    """Three hosts on a bridge of their own, reachable by ssh from the machine that carries them.

    Args:
        folder: scratch space; everything of the hosts is under it.
        shared: a folder that all hosts see, under the same path as here, as if it were a network share.
        environment: variables of every login on every host.

    Attributes:
        addresses: one IPv4 address per host; the first is meant to be the head.
        key: private ssh key that every host accepts for root.
    """

    def __init__(self, folder: Path, shared: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._shared = shared
        self._environment = environment
        self._tag = f"rd{os.getpid() % 100000}"
        self._net = f"10.77.{os.getpid() % 250 + 1}"
        self.addresses = [f"{self._net}.{11 + index}" for index in range(NUM_HOSTS)]
        self.key = folder / "key"
        self._first: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Build the network, boot every host, wait until each answers by ssh."""
        self._folder.mkdir(parents=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        _run("ip", "link", "add", self._tag, "type", "bridge")
        _run("ip", "addr", "add", f"{self._net}.1/24", "dev", self._tag)
        _run("ip", "link", "set", self._tag, "up")
        for index in range(NUM_HOSTS):
            self._connect(index)
            self._boot(index)
        for address in self.addresses:
            self._wait_for_ssh(address)

    def ssh(self, address: str, command: str, *, check: bool = True) -> str:
        """Run a command line on a host, in a login shell, and return what it printed."""
        line = f"bash --login -c {shlex.quote(command)}"
        ssh = ["ssh", "-i", str(self.key), *_SSH_OPTIONS, f"root@{address}", line]
        done = subprocess.run(ssh, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{command} on {address}: {done.stdout}{done.stderr}"
        return done.stdout

    def processes(self, address: str) -> dict[int, str]:
        """Process ids on that host, with their command lines, except sshd and our own processes."""
        listing = self.ssh(address, "ps -eo pid=,args=")
        found = {}
        for line in listing.splitlines():
            pid, _, command = line.strip().partition(" ")
            if not any(word in command for word in ("sshd", "ps -eo")):
                found[int(pid)] = command
        return found

    def listening(self, address: str) -> list[tuple[str, int, str]]:
        """TCP sockets that wait for connections on a host: local address, port, name of the process."""
        found = []
        for line in self.ssh(address, "ss -Hltnp").splitlines():
            local, port = line.split()[3].rsplit(":", 1)
            found.append((local, int(port), line.partition('(("')[2].partition('"')[0]))
        return found

    def kill_ray(self, address: str) -> None:
        """Kill every Ray process of a host with SIGKILL, as if the machine had failed."""
        marks = ("raylet", "ray::", "/ray/", "gcs_server")
        victims = [
            pid for pid, line in self.processes(address).items() if any(mark in line for mark in marks)
        ]
        self.ssh(address, "kill -9 " + " ".join(map(str, victims)), check=False)

    def set_cable(self, address: str, *, plugged: bool) -> None:
        """Connect or cut a host's network, as a switch would."""
        index = self.addresses.index(address)
        _run("ip", "link", "set", f"{self._tag}v{index}", "up" if plugged else "down")

    def stop(self) -> None:
        """End the first process of every host, and with it all others; remove the network."""
        for process in self._first:
            process.kill()
        for process in self._first:
            process.wait(30)
        for index in range(NUM_HOSTS):
            subprocess.run(["ip", "link", "del", f"{self._tag}v{index}"], capture_output=True)
            subprocess.run(["ip", "netns", "del", f"{self._tag}h{index}"], capture_output=True)
        subprocess.run(["ip", "link", "del", self._tag], capture_output=True)

    def leftovers(self, patience_s: float = 30.0) -> list[str]:
        """Remains of the hosts after ``patience_s``: processes, namespaces, links, mounts."""
        deadline = time.monotonic() + patience_s
        while True:
            found = [
                *(f"namespace {line}" for line in _lines("ip", "netns", "list") if self._tag in line),
                *(f"link {line}" for line in _lines("ip", "-o", "link") if self._tag in line),
                *(
                    f"mount {line}"
                    for line in Path("/proc/mounts").read_text().splitlines()
                    if self._owns(line)
                ),
                *(f"process {line}" for line in _command_lines() if self._owns(line)),
            ]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.5)

    def _owns(self, text: str) -> bool:
        return str(self._folder) in text or f"{self._net}." in text

    def _connect(self, index: int) -> None:
        space, cable = f"{self._tag}h{index}", f"{self._tag}v{index}"
        _run("ip", "netns", "add", space)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _run("ip", "link", "set", cable, "master", self._tag, "up")
        for device in ("lo", "eth0"):
            _run("ip", "-n", space, "link", "set", device, "up")
        _run("ip", "-n", space, "addr", "add", f"{self.addresses[index]}/24", "dev", "eth0")
        # Ray asks the routing table which address it has.
        _run("ip", "-n", space, "route", "add", "default", "via", f"{self._net}.1")

    def _boot(self, index: int) -> None:
        root = self._folder / f"host{index}"
        home, tmp = root / "home", root / "tmp"
        (home / ".ssh").mkdir(parents=True)
        tmp.mkdir()
        tmp.chmod(0o1777)
        for private in (home, home / ".ssh"):
            private.chmod(0o700)
        shutil.copy(self.key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
        exports = "".join(
            f"export {name}={shlex.quote(value)}\n" for name, value in self._environment.items()
        )
        for name in (".bashrc", ".bash_profile"):
            (home / name).write_text(f"export PATH={sys.prefix}/bin:{_PATH}\n{exports}")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / "hostkey")
        (root / "sshd_config").write_text(
            f"ListenAddress {self.addresses[index]}:22\nHostKey {root}/hostkey\nPidFile none\n"
            "AuthorizedKeysFile .ssh/authorized_keys\nPermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\nUsePAM no\nStrictModes no\nPrintMotd no\n"
            "MaxStartups 50\nMaxSessions 50\n"
        )
        (root / "boot.sh").write_text(self._boot_script(root, home, tmp, f"{self._tag}-{index}"))
        command = ["ip", "netns", "exec", f"{self._tag}h{index}", "unshare", "-m", "-u", "-i", "-p", "--fork"]
        command += ["--kill-child", "--propagation", "private", "bash", str(root / "boot.sh")]
        log = (root / "boot.log").open("wb")
        self._first.append(
            subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        )

    def _boot_script(self, root: Path, home: Path, tmp: Path, name: str) -> str:
        """A script that mounts private home and temporary folders, with everything that hosts share."""
        visible = {
            Path(sys.prefix),
            Path(sys.base_prefix).resolve(),
            package_root(),
            self._shared,
            self._folder,
        }
        binds = []
        for hidden, private in ((_HOME, home), (Path("/tmp"), tmp)):
            for path in sorted(path for path in visible if path.is_relative_to(hidden)):
                inside = private / path.relative_to(hidden)
                binds.append(f"mkdir -p {inside}; mount --bind {path} {inside}")
        return "\n".join(
            [
                "set -e",
                "mount --make-rprivate /",
                "mount -t proc proc /proc",
                f"hostname {name}",
                *binds,
                "mount -t tmpfs -o size=8g tmpfs /dev/shm",
                "mount -t tmpfs tmpfs /run; mkdir -p /run/sshd",
                f"mount --rbind {home} {_HOME}",
                f"mount --rbind {tmp} /tmp",
                f"exec {shutil.which('sshd', path=_PATH)} -D -f {root}/sshd_config -E {root}/sshd.log",
                "",
            ]
        )

    def _wait_for_ssh(self, address: str) -> None:
        deadline = time.monotonic() + 30
        while self.ssh(address, "echo up", check=False).strip() != "up":
            assert time.monotonic() < deadline, f"host {address} did not boot: {self._logs()}"
            time.sleep(0.2)

    def _logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("host*/*.log")))


def package_root() -> Path:
    """The folder from which raydec is imported."""
    return Path(raydec.__file__).resolve().parents[1]


def _command_lines() -> list[str]:
    lines = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                lines.append(f"{process.name} {(process / 'cmdline').read_text().replace(chr(0), ' ')}")
            except OSError:
                continue  # it has just ended
    return lines


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"


__all__: Sequence[str] = ("NUM_HOSTS", "PretendHosts", "package_root", "why_not")
