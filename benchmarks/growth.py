"""Plots how costs grow: ``python -m benchmarks.growth WORK_DIR [--kmeans FILE.json] [--memory FILE.json]``.

Epoch time against corpus size, for one and two workers of one thread each; K-means against rows and clusters
from the JSON of benchmarks.kmeans, memory against corpus size from that of benchmarks.memory. Every plot
shows only measured points and a least-squares line. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.epoch import cycle, make_demo_store, run_raydec
from benchmarks.report import (
    RESULTS,
    argument_parser,
    machine,
    machine_lock,
    shown,
    spread,
    table,
    write_results,
)

WORKERS = (1, 2)


def epochs_by_size(options: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds of an epoch, for each size and number of workers, in turned order."""
    work = options.work_dir.absolute()
    points = [(size, workers) for size in options.sizes for workers in WORKERS]
    samples = []
    for number in range(options.rounds):
        for size, workers in points if number % 2 == 0 else reversed(points):
            settings = [f"ray.num_workers={workers}", "training.batch_utterances=16"]
            with machine_lock(options.lock):
                store = make_demo_store(work, size, 0)
                got = run_raydec(settings, store, work, options.epochs, workers)
            seconds = statistics.median(map(cycle, got))
            samples.append({"utterances": size, "workers": workers, "epoch_s": seconds})
            print(samples[-1], flush=True)
    return samples


def plot(numbers: dict[str, Any], path: Path) -> Path:
    """All plots in one SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    plot_epochs(axes[0, 0], numbers["epochs"])
    if numbers.get("kmeans"):
        plot_kmeans(axes[0, 1], numbers["kmeans"], "rows", "clusters", "rows", "K")
        plot_kmeans(axes[1, 0], numbers["kmeans"], "clusters", "rows", "K", "rows")
    if numbers.get("memory"):
        plot_memory(axes[1, 1], numbers["memory"])
    else:
        axes[1, 1].set_axis_off()
    figure.savefig(path)
    return path


def plot_epochs(axis: Any, samples: list[dict[str, float]]) -> None:
    """Epoch time against corpus size."""
    for workers in sorted({sample["workers"] for sample in samples}):
        mine = [sample for sample in samples if sample["workers"] == workers]
        x = np.array([11 * sample["utterances"] for sample in mine])
        y = np.array([sample["epoch_s"] for sample in mine])
        (points,) = axis.plot(x, y, "o", label=f"{workers} worker(s) of 1 thread")
        slope, intercept = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axis.plot(ends, slope * ends + intercept, color=points.get_color(), linewidth=0.8)
    axis.set(xlabel="labeled chunks", ylabel="epoch, s", title="Epoch", xlim=(0, None), ylim=(0, None))
    axis.legend()


def plot_kmeans(axis: Any, samples: list[dict[str, float]], over: str, by: str, x: str, label: str) -> None:
    """Seconds of a fit against one of rows and clusters, a line for each value of the other."""
    for value in sorted({sample[by] for sample in samples}):
        mine = sorted((s for s in samples if s[by] == value), key=lambda s: s[over])
        per_pass = [s["cold_s"] for s in mine]
        axis.plot([s[over] for s in mine], per_pass, "o-", linewidth=0.8, label=f"{label} = {value:,.0f}")
    axis.set(xscale="log", yscale="log", xlabel=x, ylabel="fit from scratch, s", title=f"K-means against {x}")
    axis.legend()


def plot_memory(axis: Any, results: dict[str, dict[str, float]]) -> None:
    """Peak anonymous memory of training against the size of the frames."""
    trained = [
        (name.split()[2], peak["peak_anonymous_mib"]) for name, peak in results.items() if "train" in name
    ]
    axis.plot([float(size) for size, _ in trained], [peak for _, peak in trained], "o")
    axis.set(xlabel="frames, GiB", ylabel="anonymous memory, MiB", title="Training", ylim=(0, None))


def main() -> None:
    """Measure, plot, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=[16, 32, 64, 128])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--kmeans", type=Path, help="JSON of benchmarks.kmeans")
    parser.add_argument("--memory", type=Path, help="JSON of benchmarks.memory")
    parser.add_argument("--lock", help="file to lock around each run, on a shared machine")
    options = parser.parse_args()
    numbers: dict[str, Any] = {"machine": machine(), "epochs": epochs_by_size(options)}
    if options.kmeans:
        numbers["kmeans"] = json.loads(options.kmeans.read_text())["grow"]
    if options.memory:
        numbers["memory"] = json.loads(options.memory.read_text())
    picture = plot(numbers, RESULTS / f"{time.strftime('%Y-%m-%d')}-growth.svg")
    rows = [
        [
            f"{11 * size:,}",
            *(
                shown(
                    spread(
                        [
                            s["epoch_s"]
                            for s in numbers["epochs"]
                            if (s["utterances"], s["workers"]) == (size, w)
                        ]
                    )
                )
                for w in WORKERS
            ),
        ]
        for size in options.sizes
    ]
    text = "\n".join(
        [
            f"# Growth, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python -m benchmarks.growth WORK_DIR {shlex.join(sys.argv[2:])}`",
            "",
            f"{numbers['machine']}. Seconds per epoch, median (least to greatest) over {options.rounds} runs "
            "in turned order; the published network, batches of 176 chunks.",
            "",
            table(["labeled chunks", *(f"{w} worker(s) of 1 thread" for w in WORKERS)], rows),
            "",
            f"![measured points]({picture.name})",
        ]
    )
    print(text)
    print(write_results("growth", text, numbers))


if __name__ == "__main__":
    main()
