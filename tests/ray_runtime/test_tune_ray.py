"""Searches with Ray Tune from the command line: killed and resumed, exchanging checkpoints, failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml
from disturbance import comparable
from stores import make_store

from raydec.console.terminal import run_entry_point
from raydec.ray_runtime.session import start_ray
from raydec.tune import main

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
DEADLINE_S = 600

SMALL = [
    "model.channels=[4,4,4,4,8,8,8]",
    "model.embedding_dim=16",
    "features.scale=log",
    "training.batch_utterances=4",
    "training.recipe=modern",
    "data.attributes=[arousal]",
    # Its processes take seconds of both cores whenever a search begins.
    "ray.dashboard=false",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("tune"), num_train=8, num_unlabeled=0)


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    """One Ray for the tests that run a search in this process."""
    start_ray("local", num_cpus=2)
    yield
    ray.shutdown()


def settings(store: Path, folder: Path, name: str, *more: str) -> list[str]:
    return [f"data.store={store}", f"output_dir={folder}", f"name={name}", *SMALL, *more]


def results(search: Path) -> dict:
    return json.loads((search / "results.json").read_text())


def epochs_of(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return [json.loads(line)["epoch"] for line in lines]


def wait_for(condition: object, process: subprocess.Popen[str], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, f"the search ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"no {what} in {DEADLINE_S} s"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_killed_search_goes_on_and_trains_nothing_twice(store: Path, tmp_path: Path) -> None:
    space = "search.space.clustering.num_clusters=[3,4,5]"
    more = [
        "training.epochs=4",
        "search.searcher=grid",
        space,
        "ray.num_workers=1",
        "search.max_concurrent=1",
    ]
    command = [sys.executable, "-m", "raydec.tune", *settings(store, tmp_path, "k", *more)]
    trials = tmp_path / "k" / "trials"
    first, second, third = (trials / f"{number:04d}-s31" for number in range(3))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        wait_for(lambda: (first / "summary.json").exists(), process, "finished trial")
        # A second epoch has begun, so the first one's checkpoint is complete.
        wait_for(lambda: len(epochs_of(second)) >= 2, process, "trial in the middle")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (second / "summary.json").exists()
    assert not third.exists()
    epoch_before = (second / "metrics.jsonl").read_text().splitlines()[0]
    finished_at = (first / "summary.json").stat().st_mtime_ns

    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in trials.iterdir()) == [first.name, second.name, third.name]
    assert [epochs_of(run) for run in (first, second, third)] == [[1, 2, 3, 4]] * 3
    assert (first / "summary.json").stat().st_mtime_ns == finished_at
    document = results(tmp_path / "k")
    assert [entry["state"] for entry in document["settings"]] == ["finished"] * 3
    # It resumed from its checkpoint: the first epoch is the one that was trained before the kill.
    assert (second / "metrics.jsonl").read_text().splitlines()[0] == epoch_before
    assert os.readlink(tmp_path / "k" / "best").startswith("trials/")
    assert (tmp_path / "k" / "best" / "model.safetensors").is_file()
    assert "3/3" in done.stdout and "1/3" not in done.stdout

    again = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert again.returncode == 0
    assert "had already finished" in again.stdout
    assert (first / "summary.json").stat().st_mtime_ns == finished_at


@pytest.mark.slow
def test_a_search_finds_the_same_with_workers_and_without(
    store: Path, tmp_path: Path, two_cpus: None
) -> None:
    """To the last bit: losses, clusters and scores of every epoch."""
    found = {}
    for name, workers in {"own": [], "worker": ["ray.num_workers=1"]}.items():
        more = ["training.epochs=2", "search.searcher=grid", "search.space.clustering.num_clusters=[3,4]"]
        assert run_entry_point(main, settings(store, tmp_path, name, *more, *workers)) == 0
        trials = sorted((tmp_path / name / "trials").iterdir())
        assert [(run / "workers.jsonl").read_text().count("kmeans") for run in trials] == [len(workers)] * 2
        entries = results(tmp_path / name)["settings"]
        found[name] = (
            [
                (entry["setting"], entry["score"], entry["test_ccc"] if "test_ccc" in entry else None)
                for entry in entries
            ],
            [comparable(run) for run in trials],
        )
    assert found["own"] == found["worker"]


@pytest.mark.slow
def test_optuna_averages_the_seeds_of_a_setting(store: Path, tmp_path: Path, two_cpus: None) -> None:
    search = ["search.searcher=optuna", "search.num_samples=3", "search.seeds=[1,2]", "training.epochs=2"]
    space = "search.space.clustering.num_clusters={randint: [2, 8]}"
    arguments = settings(store, tmp_path, "o", *search, space, "ray.num_workers=0")
    assert run_entry_point(main, arguments) == 0
    document = results(tmp_path / "o")
    assert len(document["settings"]) == 3
    assert len({entry["setting"]["clustering.num_clusters"] for entry in document["settings"]}) == 3
    for entry in document["settings"]:
        scores = [run["score"] for run in entry["runs"]]
        assert [run["seed"] for run in entry["runs"]] == [1, 2]
        assert entry["score"]["mean"] == pytest.approx(sum(scores) / 2)
        for run in entry["runs"]:
            config = yaml.safe_load((tmp_path / "o" / "trials" / run["run"] / "config.yaml").read_text())
            assert config["seed"] == run["seed"]
            assert config["clustering"]["num_clusters"] == entry["setting"]["clustering.num_clusters"]


@pytest.mark.slow
def test_population_based_training_hands_checkpoints_over(
    store: Path, tmp_path: Path, two_cpus: None
) -> None:
    search = ["search.scheduler=pbt", "search.num_samples=2", "search.grace_epochs=2", "training.epochs=4"]
    space = "search.space.loss.cluster_weight={loguniform: [0.01, 10.0]}"
    arguments = settings(store, tmp_path, "p", *search, space, "ray.num_workers=0")
    assert run_entry_point(main, arguments) == 0
    document = results(tmp_path / "p")
    assert [entry["state"] for entry in document["settings"]] == ["finished"] * 2
    for entry in document["settings"]:
        run = tmp_path / "p" / "trials" / entry["runs"][0]["run"]
        assert epochs_of(run) == [1, 2, 3, 4]
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["loss"]["cluster_weight"] == entry["setting"]["loss.cluster_weight"]
        assert 0.01 <= config["loss"]["cluster_weight"] <= 10.0
    assert not (tmp_path / "p" / "tune").exists()


@pytest.mark.slow
def test_a_failed_trial_is_listed_and_tried_again_by_the_same_command(
    store: Path, tmp_path: Path, two_cpus: None, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "search.space.clustering.num_clusters=[3,4]"
    more = ["training.epochs=1", "search.searcher=grid", space, "ray.num_workers=0"]
    arguments = settings(store, tmp_path, "f", *more)
    # A folder where the second trial wants to write its settings.
    in_the_way = tmp_path / "f" / "trials" / "0001-s31" / "config.yaml"
    in_the_way.mkdir(parents=True)
    assert run_entry_point(main, arguments) == 0
    assert [entry["state"] for entry in results(tmp_path / "f")["settings"]] == ["finished", "failed"]
    assert "IsADirectoryError" in results(tmp_path / "f")["settings"][1]["runs"][0]["problem"]
    printed = capsys.readouterr().out
    assert printed.count("failed, retrying") == 1
    assert "1 trials failed; run the same command again to retry them" in printed
    in_the_way.rmdir()
    assert run_entry_point(main, arguments) == 0
    assert [entry["state"] for entry in results(tmp_path / "f")["settings"]] == ["finished"] * 2


def test_a_search_of_which_everything_failed_says_so_by_its_status(
    store: Path, tmp_path: Path, two_cpus: None, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["training.epochs=1", "search.searcher=grid", "search.space.clustering.num_clusters=[3]"]
    # Another run's settings: a user's mistake, which a retry would not fix.
    others = tmp_path / "a" / "trials" / "0000-s31" / "config.yaml"
    others.parent.mkdir(parents=True)
    others.write_text("training: {epochs: 7}\n")
    with pytest.raises(SystemExit) as ended:
        run_entry_point(main, settings(store, tmp_path, "a", *more, "ray.num_workers=0"))
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "but differs in" in printed and "retrying" not in printed


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("search.space.clustering.num_cluster=[3]", "did you mean 'clustering.num_clusters'"),
        ("search.metric=valid/cc", "search.metric=valid/cc is not a key of metrics.jsonl"),
        (
            "ray.num_workers=4096",
            "4096 workers (ray.num_workers) x 1 CPU need 4096 CPUs, but the cluster has",
        ),
        ("ray.address=127.0.0.1:1", "no Ray cluster at 127.0.0.1:1"),
    ],
)
def test_a_mistake_is_one_line_at_once(tmp_path: Path, setting: str, message: str) -> None:
    command = [sys.executable, "-m", "raydec.tune", f"output_dir={tmp_path}", setting]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())
