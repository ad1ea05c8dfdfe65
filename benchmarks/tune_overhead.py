"""Measures the overhead of a search over plain training, for one and two trials at a time.

``python -m benchmarks.tune_overhead WORK_DIR [--trials 4] [--epochs 12] [--rounds 1] [--lock FILE]`` trains a
few settings like those of ``tune_configs/smoke.yaml``, with one CPU thread each, in turns:

* ``bare``: without Ray, in as many processes as trials run at a time; only the training is timed, without
  imports and the preparation of the feature store,
* ``default``: a search with ``ray.num_workers`` unset, timed from the start of the command to its end,
* ``worker``: the same with ``ray.num_workers=1``, by Ray Train.

Checks that all of them give the same scores, and writes a dated page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.report import argument_parser, machine, machine_lock, table, write_results

SETTINGS = [
    "model.channels=[8,8,16,16,32,32,32]",
    "model.embedding_dim=64",
    "features.scale=log",
    "training.recipe=modern",
    "training.batch_utterances=16",
    "data.unlabeled_utterances=40",
    "ray.cpus_per_worker=1",
]
CLUSTERS = [5, 10, 20, 30, 40, 50]
KINDS: dict[str, list[str]] = {"bare": [], "default": [], "worker": ["ray.num_workers=1"]}
LANES = (1, 2)

# Trains settings one after the other; waits for a line, so that all lanes begin together.
LANE = """
import json, sys, time
from raydec.config import load_config
from raydec.experiment import resolve
from raydec.runs.opening import begin
from raydec.runs.training_loop import train_here
runs = [resolve(load_config(None, arguments)) for arguments in json.loads(sys.argv[1])]
print("ready", flush=True)
sys.stdin.readline()
begun = time.perf_counter()
for config in runs:
    folder = begin(config)
    train_here(config, folder.location, folder.claim)
print(time.perf_counter() - begun, flush=True)
"""


def bare_seconds(work: Path, clusters: list[int], epochs: int, lanes: int) -> float:
    """Wall seconds of training all settings, ``lanes`` at a time."""
    processes = []
    for lane in range(lanes):
        runs = [
            [
                *SETTINGS,
                f"clustering.num_clusters={number}",
                f"training.epochs={epochs}",
                "ray.num_workers=0",
                f"output_dir={work}",
                f"name=bare-{number}",
            ]
            for number in clusters[lane::lanes]
        ]
        command = [sys.executable, "-c", LANE, json.dumps(runs)]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
    for process in processes:
        assert process.stdout is not None
        if "ready\n" not in process.stdout:  # skips the messages about the demo corpus
            raise RuntimeError("bare training could not begin; see above")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0].splitlines()[-1]) for process in processes)


def search_seconds(
    work: Path, clusters: list[int], epochs: int, lanes: int, more: list[str], name: str
) -> float:
    """Wall seconds of the command that searches the same settings."""
    command = [sys.executable, "-m", "raydec.tune", *SETTINGS, *more]
    command += [f"training.epochs={epochs}", f"name={name}", f"output_dir={work}"]
    command += [f"search.space.clustering.num_clusters={clusters}", "search.searcher=grid"]
    command += [f"search.max_concurrent={lanes}", f"ray.num_cpus={lanes}"]
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def scores(work: Path, kind: str, clusters: list[int]) -> list[float]:
    """Best validation CCC of each setting, in the order of the settings."""
    folders = (
        [work / f"bare-{number}" for number in clusters]
        if kind == "bare"
        else [work / kind / "trials" / f"{number:04d}-s31" for number in range(len(clusters))]
    )
    curves = [(folder / "metrics.jsonl").read_text().splitlines() for folder in folders]
    return [max(json.loads(line)["valid/ccc"] for line in curve) for curve in curves]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds: seconds by lanes and kind."""
    clusters = CLUSTERS[: options.trials]
    seconds: dict[int, dict[str, list[float]]] = {lanes: {kind: [] for kind in KINDS} for lanes in LANES}
    found: dict[str, list[float]] = {}
    work: Path = options.work_dir.absolute()
    work.mkdir(parents=True, exist_ok=True)
    # The demo corpus is made here, before anything is timed.
    bare_seconds(work, [2], 1, 1)
    for number in range(options.rounds):
        for lanes in LANES:
            for kind in KINDS if number % 2 == 0 else reversed(KINDS):
                for run in [*work.glob("bare-*"), work / kind]:
                    shutil.rmtree(run, ignore_errors=True)
                with machine_lock(options.lock):
                    taken = (
                        bare_seconds(work, clusters, options.epochs, lanes)
                        if kind == "bare"
                        else search_seconds(work, clusters, options.epochs, lanes, KINDS[kind], kind)
                    )
                seconds[lanes][kind].append(taken)
                found.setdefault(kind, scores(work, kind, clusters))
                if scores(work, kind, clusters) != found["bare" if "bare" in found else kind]:
                    raise RuntimeError(f"{kind} found other scores: {scores(work, kind, clusters)}, {found}")
                print(f"round {number + 1}, {lanes} at a time, {kind}: {taken:.1f} s", flush=True)
    return {"machine": machine(), "trials": options.trials, "seconds": seconds, "scores": found["bare"]}


def page(numbers: dict[str, Any], command: str) -> str:
    """The Markdown of a measurement."""
    rows = []
    for lanes, by_kind in numbers["seconds"].items():
        bare = statistics.median(by_kind["bare"])
        each = bare * lanes / numbers["trials"]
        overheads = [f"{statistics.median(by_kind[kind]) / bare - 1:+.0%}" for kind in ("default", "worker")]
        wall = [f"{statistics.median(by_kind[kind]):.0f}" for kind in KINDS]
        rows.append([str(lanes), f"{each:.0f} s", *wall, *overheads])
    header = ["trials at a time", "a trial, bare", "bare, s", "default, s", "worker, s"]
    return "\n".join(
        [
            f"# Overhead of a search over its trials, {time.strftime('%Y-%m-%d')}",
            "",
            f"`{command}`",
            "",
            f"{numbers['machine']}. {numbers['trials']} trials, all with the same scores in all three ways. "
            "`bare` is training alone; `default` and `worker` (`ray.num_workers=1`) are timed from the "
            "command to its end, with the start of Python and Ray, results and report.",
            "",
            table([*header, "default over bare", "worker over bare"], rows),
        ]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--trials", type=int, default=4, choices=range(1, len(CLUSTERS) + 1))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lock", help="file to lock around each contender, on a shared machine")
    options = parser.parse_args()
    numbers = measure(options)
    asked = f"--trials {options.trials} --epochs {options.epochs} --rounds {options.rounds}"
    text = page(numbers, f"python -m benchmarks.tune_overhead WORK_DIR {asked}")
    print(text)
    print(write_results("tune-overhead", text, numbers))


if __name__ == "__main__":
    sys.exit(main())
