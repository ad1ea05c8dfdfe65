"""What every test shares: shape checks at run time, folders of outside data, honest skips."""

from __future__ import annotations

import os
import subprocess

# These must be in place before torch, OpenMP or Ray start, and workers inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook
from xdist.scheduler.loadscope import LoadScopeScheduling

# Before the first raydec import, so that every annotation of the package is checked on every call.
install_import_hook("raydec", "beartype.beartype")
torch.set_num_threads(1)

from raydec.verbosity import set_verbosity  # noqa: E402

CLUSTER_TESTS_VARIABLE = "RAYDEC_CLUSTER_TESTS"
SLOW_TESTS_VARIABLE = "RAYDEC_SLOW_TESTS"
FAULT_TESTS_VARIABLE = "RAYDEC_FAULT_TESTS"


def _outside_folder(variable: str, what: str) -> Path:
    """The folder an environment variable names; the calling test is skipped when there is none."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the folder of {what}")
    folder = Path(value)
    if not folder.is_dir():
        pytest.skip(f"{variable}={value} is not a folder")
    return folder.resolve()


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Published weights, and the published system's values on a few recordings."""
    return _outside_folder("RAYDEC_REFERENCE_DIR", "the published weights and outputs")


@pytest.fixture(scope="session")
def speech_dir() -> Path:
    """Recorded emotional speech in several corpus layouts."""
    return _outside_folder("RAYDEC_SPEECH_DIR", "recorded emotional speech")


@pytest.fixture(scope="session")
def ravdess_dir() -> Path:
    """The 1,440 spoken clips of RAVDESS in the layout of MSP-Podcast, with their actors as speakers."""
    return _outside_folder("RAYDEC_RAVDESS_DIR", "RAVDESS in the layout of MSP-Podcast")


@pytest.fixture(scope="session")
def encoders_dir() -> Path:
    """Real pretrained speech encoders, as transformers reads them."""
    return _outside_folder("RAYDEC_ENCODERS_DIR", "pretrained speech encoders")


@pytest.fixture(autouse=True)
def default_verbosity() -> Iterator[None]:
    """A command that a test calls with ``-q`` must not hide the warnings that a later test expects."""
    yield
    set_verbosity(0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small tmpfs: needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# Where tests start Ray. Two local Ray instances would compete for the cores and for the ports of the network
# namespaces, so one process runs them all.
_RAY_FILES = ("tests/cluster/", "tests/ray_runtime/")


class _RayTogether(LoadScopeScheduling):
    """Gives a file's tests to one process, which makes their fixtures once, and all of Ray's to another.

    pytest-xdist does the same by marks (``--dist loadgroup``), but not with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "ray" if nodeid.startswith(_RAY_FILES) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Called by pytest-xdist."""
    return _RayTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with Ray's tests, which take longest; skip what cannot run here or must be requested."""
    items.sort(key=lambda item: not item.nodeid.startswith(_RAY_FILES))
    has_gpu = torch.cuda.is_available()
    may_build_cluster = os.geteuid() == 0 and os.environ.get(CLUSTER_TESTS_VARIABLE) == "1"
    wants_slow = os.environ.get(SLOW_TESTS_VARIABLE) == "1"
    for item in items:
        if item.get_closest_marker("slow") and not wants_slow:
            reason = f"takes long: run with {SLOW_TESTS_VARIABLE}=1, as .ci/run does"
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("faults") and os.environ.get(FAULT_TESTS_VARIABLE) != "1":
            reason = f"kills processes of whole runs, many minutes: run with {FAULT_TESTS_VARIABLE}=1"
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("gpu") and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        if item.get_closest_marker("cluster") and not may_build_cluster:
            reason = f"builds network namespaces: run as root with {CLUSTER_TESTS_VARIABLE}=1"
            item.add_marker(pytest.mark.skip(reason=reason))
