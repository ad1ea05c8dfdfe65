"""Training on real Ray workers: the same path for any number of workers, and no work lost after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import SMALL_NETWORK, make_store

from raydec.learning.checkpoint import load_state

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SMALL = [
    *SMALL_NETWORK,
    "ray.cpus_per_worker=1",
]
NUMBERS_THAT_MAY_DIFFER = ("time/", "throughput/", "kmeans/")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("training"), num_train=12, num_unlabeled=6)


def command(store: Path, folder: Path, name: str, *settings: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "raydec.train",
        f"data.store={store}",
        f"output_dir={folder}",
        f"name={name}",
        *SMALL,
        *settings,
    ]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def comparable(metrics: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.startswith(NUMBERS_THAT_MAY_DIFFER)} for line in metrics]


def test_two_workers_train_like_one(store: Path, tmp_path: Path) -> None:
    """One epoch: every step's losses to 1e-4, the weights at its end to 1e-3."""
    for workers in (1, 2):
        settings = ["training.epochs=1", "training.recipe=reference", f"ray.num_workers={workers}"]
        run(*command(store, tmp_path, f"w{workers}", *settings))
    one, two = (lines(tmp_path / f"w{workers}" / "steps.jsonl") for workers in (1, 2))
    assert len(one) == len(two) == 2 + 3
    for alone, together in zip(one, two, strict=True):
        assert alone.keys() == together.keys()
        for name in ("cluster", "emotion"):
            if name in alone:
                assert together[name] == pytest.approx(alone[name], rel=1e-4), (alone, name)

    first, second = (load_state(tmp_path / f"w{n}" / "checkpoints" / "epoch-00001") for n in (1, 2))
    ours, theirs = (
        torch.cat([value.double().reshape(-1) for value in state.network.values()])
        for state in (second, first)
    )
    assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
    assert (ours - theirs).abs().max() <= 1e-3
    for stage in ("unlabeled", "labeled"):
        assert np.mean(first.labels[stage] == second.labels[stage]) > 0.98


@pytest.mark.slow
def test_a_killed_run_ends_with_the_numbers_of_an_undisturbed_one(store: Path, tmp_path: Path) -> None:
    settings = ["training.epochs=4", "training.recipe=modern", "ray.num_workers=2"]
    run(*command(store, tmp_path, "undisturbed", *settings))

    killed = tmp_path / "killed"
    driver = subprocess.Popen(
        command(store, tmp_path, "killed", *settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 500
    while not ((killed / "metrics.jsonl").exists() and len(lines(killed / "metrics.jsonl")) >= 2):
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no second epoch"
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (killed / "summary.json").exists()

    again = run(*command(store, tmp_path, "killed", *settings))
    assert "4/4" in again.stdout
    expected = comparable(lines(tmp_path / "undisturbed" / "metrics.jsonl"))
    assert comparable(lines(killed / "metrics.jsonl")) == expected
    assert json.loads((killed / "summary.json").read_text()) == json.loads(
        (tmp_path / "undisturbed" / "summary.json").read_text()
    )
    ours, theirs = (
        load_state(tmp_path / name / "checkpoints" / "epoch-00004").network
        for name in ("killed", "undisturbed")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    # K-means ran in a separate actor, which lived through all epochs.
    metrics = lines(tmp_path / "undisturbed" / "metrics.jsonl")
    assert len({line["kmeans/actor_pid"] for line in metrics}) == 1
    ages = [line["kmeans/actor_age_s"] for line in metrics]
    assert ages == sorted(ages) and ages[0] > 0
    assert all(line["time/kmeans_fit_s"] > 0 for line in metrics)

    finished = run(*command(store, tmp_path, "killed", *settings))
    assert "already finished" in finished.stdout


def test_more_workers_than_cores_are_refused_with_the_arithmetic(store: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(store, tmp_path, "greedy", "ray.num_workers=1000"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "1000 x 1 CPUs = 1000 CPUs" in done.stderr
