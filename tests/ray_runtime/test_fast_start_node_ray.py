"""The processes of a local Ray; each start in a separate process, as in a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from raydec.ray_runtime import fast_start

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

HELPERS = ("dashboard.py", "monitor.py", "log_monitor.py")
INSIDE = """
import json, os, sys
import psutil, ray
from ray._private.node import Node
from raydec.ray_runtime.session import start_ray
methods = Node.start_api_server, Node.start_monitor, Node.start_log_monitor
niceness = int(sys.argv[2]) if sys.argv[2:] else None
start_ray("local", num_cpus=1, object_store_gib=0.1, dashboard=sys.argv[1] == "True", niceness=niceness)
assert methods == (Node.start_api_server, Node.start_monitor, Node.start_log_monitor)
added = ray.get(ray.remote(lambda: os.nice(0)).remote()) - os.nice(0)
assert added == (niceness or 0), added
commands = [word for child in psutil.Process().children(recursive=True) for word in child.cmdline()]
print(json.dumps(sorted({word.rsplit("/", 1)[-1] for word in commands if word.endswith(".py")})))
"""


def scripts_started(*more: str, dashboard: bool, fast: bool = True) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, str(dashboard), *more],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {fast_start.VARIABLE: str(int(fast))},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.skipif(not fast_start.is_usable("node"), reason="only the public API of Ray is used")
def test_a_run_has_no_helpers_that_it_does_not_need() -> None:
    assert scripts_started(dashboard=True) >= set(HELPERS)
    assert not scripts_started(dashboard=False) & set(HELPERS)


def test_ray_starts_by_its_public_names_alone() -> None:
    assert "monitor.py" in scripts_started("3", dashboard=False, fast=False)
