"""What Tune, Ray Train and the search around them cost over bare training of the same settings.

``python -m benchmarks.tune_overhead WORK_DIR [--trials 3] [--epochs 12]`` trains a few settings like those
of ``tune_configs/smoke.yaml`` one after the other: first bare (``ray.num_workers=0``, all in this process,
only the training timed) and then as a search that trains one at a time, timed from the command to its end, as
people see it. One CPU thread each. Prints and writes ``tune_overhead.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

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


def bare_seconds(work: Path, num_trials: int, epochs: int) -> list[float]:
    """Seconds of each training in this process, without Ray; imports and the store are paid before."""
    from raydec.config import load_config
    from raydec.experiment import begin, resolve
    from raydec.runs.training_loop import train_here

    seconds = []
    for num_clusters in CLUSTERS[:num_trials]:
        own = [f"clustering.num_clusters={num_clusters}", f"training.epochs={epochs}", f"output_dir={work}"]
        config = load_config(None, [*SETTINGS, *own, f"name=bare-{num_clusters}", "ray.num_workers=0"])
        resolved = resolve(config)
        folder = begin(resolved)
        begun = time.perf_counter()
        train_here(resolved, folder.location)
        seconds.append(time.perf_counter() - begun)
    return seconds


def search_seconds(work: Path, num_trials: int, epochs: int, num_workers: int) -> float:
    """Wall seconds of the command that searches the same settings, one at a time."""
    name = f"search-{num_workers}"
    command = [sys.executable, "-m", "raydec.tune", *SETTINGS]
    command += [f"training.epochs={epochs}", f"name={name}", f"output_dir={work}"]
    command += [f"search.space.clustering.num_clusters={CLUSTERS[:num_trials]}", "search.searcher=grid"]
    command += ["search.max_concurrent=1", f"ray.num_workers={num_workers}"]
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print, and write ``tune_overhead.json`` into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--trials", type=int, default=3, choices=range(1, len(CLUSTERS) + 1))
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    work: Path = options.work_dir.absolute()
    work.mkdir(parents=True)
    seconds = bare_seconds(work, options.trials, options.epochs)
    results: dict[str, object] = {"bare_s": seconds}
    for num_workers in (1, 0):
        wall = search_seconds(work, options.trials, options.epochs, num_workers)
        results[f"search_s num_workers={num_workers}"] = wall
        results[f"overhead num_workers={num_workers}"] = wall / sum(seconds) - 1
    print(json.dumps(results, indent=2))
    (work / "tune_overhead.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
