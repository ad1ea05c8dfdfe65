"""What every test shares: shape checks at run time, folders of outside data, honest skips."""

from __future__ import annotations

import os
import subprocess

# These must be in place before torch, OpenMP or Ray start, and workers inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

# Before the first raydec import, so that every annotation of the package is checked on every call.
install_import_hook("raydec", "beartype.beartype")
torch.set_num_threads(1)

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
def encoders_dir() -> Path:
    """Real pretrained speech encoders, as transformers reads them."""
    return _outside_folder("RAYDEC_ENCODERS_DIR", "pretrained speech encoders")


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


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Skip tests that this machine cannot run or that must be requested, each with a reason."""
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
