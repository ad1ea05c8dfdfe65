"""How long until the first training step? ``python -m benchmarks.startup WORK_DIR [--runs 5]``.

Starts what ``python -m raydec.train`` starts, on a prepared store of the synthetic demo corpus, and notes the
time at each mark on the way, in the driver and in the training worker. With and without Ray, in turn.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.epoch import ENVIRONMENT, make_demo_store
from benchmarks.report import argument_parser, machine, machine_lock, shown, spread, table, write_results

PARTS = {
    "imports": ("begin", "imported"),
    "store open and checks (driver)": ("imported", "resolved"),
    "Ray start": ("resolved", "ray"),
    "K-means actor and worker start": ("ray", "worker"),
    "store open (worker)": ("worker", "opened"),
    "network and optimisers": ("opened", "built"),
    "first embedding pass and K-means": ("built", "clustered"),
    "first batch and step": ("clustered", "step"),
}


def mark(folder: str, name: str) -> None:
    """Note that a mark was reached, once."""
    path = Path(folder) / f"mark-{name}"
    if not path.exists():
        path.write_text(repr(time.time()))


def timed_loop(config: Any, worker: Any, clusterer: Any, location: str) -> None:
    """:func:`raydec.experiment.train_loop` with marks."""
    mark(location, "worker")
    from raydec import experiment
    from raydec.learning.epoch import EpochRunner
    from raydec.reporting.recorder import RunRecorder

    step, train, open_data = RunRecorder.step, EpochRunner._train, experiment.open_data

    def marked_step(self: RunRecorder, record: Mapping[str, Any]) -> None:
        mark(location, "step")
        step(self, record)

    def marked_train(self: EpochRunner, *arguments: Any) -> Any:
        mark(location, "clustered")
        return train(self, *arguments)

    def marked_open(config: Any) -> Any:
        opened = open_data(config)
        mark(location, "opened")
        return opened

    class MarkedTraining(experiment.Training):
        def run(self) -> Any:
            mark(location, "built")
            return super().run()

    RunRecorder.step, EpochRunner._train = marked_step, marked_train  # type: ignore[method-assign]
    experiment.open_data, experiment.Training = marked_open, MarkedTraining  # type: ignore[misc]
    experiment.train_loop(config, worker, clusterer, location)


def inside(arguments: list[str]) -> None:
    """What the driver of ``python -m raydec.train`` does, with marks."""
    from raydec.command_line import parse_config_arguments

    config = parse_config_arguments(arguments, verb="train", summary="")
    from raydec import experiment

    imported = time.time()
    config = experiment.resolve(config)
    resolved = time.time()
    folder = experiment.begin(config)
    location = folder.location
    if config.ray.num_workers == 0:
        mark(location, "ray")
        run_here(config, location)
    else:
        from raydec.ray_runtime.launch import train_on_ray
        from raydec.ray_runtime.session import start_ray

        start_ray(config.ray.address)
        mark(location, "ray")
        train_on_ray(config, timed_loop, location)
    (folder.local / "mark-imported").write_text(repr(imported))
    (folder.local / "mark-resolved").write_text(repr(resolved))


def run_here(config: Any, location: str) -> None:
    """Without Ray."""
    from raydec.learning.clustering import LocalClusterer
    from raydec.learning.host import prepare_host
    from raydec.learning.worker import LocalWorker

    prepare_host(config.ray.cpus_per_worker)
    worker = LocalWorker(Path(location))
    timed_loop(config, worker, LocalClusterer(worker, config.clustering), location)


def measured(settings: list[str], store: Path, work: Path) -> dict[str, float]:
    """Seconds by part of one start, and in all."""
    runs = work / "runs-startup"
    shutil.rmtree(runs, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.startup", "--inside", f"data.store={store}"]
    command += [f"output_dir={runs}", "name=start", "training.epochs=1", "training.batch_utterances=8"]
    begun = time.time()
    done = subprocess.run([*command, *settings], capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    marks = {"begin": begun}
    for path in (runs / "start").glob("mark-*"):
        marks[path.name.removeprefix("mark-")] = float(path.read_text())
    seconds = {name: marks[end] - marks[start] for name, (start, end) in PARTS.items()}
    return seconds | {"total": marks["step"] - begun}


def main() -> None:
    """Measure, print, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--lock", help="file to lock around each run, on a shared machine")
    options = parser.parse_args()
    work = options.work_dir.absolute()
    store = make_demo_store(work, 64, 64)
    kinds = {
        "no Ray": ["ray.num_workers=0"],
        "1 worker": ["ray.num_workers=1"],
        "2 workers": ["ray.num_workers=2"],
    }
    samples: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(options.runs):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            with machine_lock(options.lock):
                samples[kind].append(measured(kinds[kind], store, work))
            print(f"run {number + 1}: {kind}: {samples[kind][-1]['total']:.1f} s", flush=True)
    rows = [
        [part, *(shown(spread([sample[part] for sample in samples[kind]]), 1) for kind in kinds)]
        for part in [*PARTS, "total"]
    ]
    text = "\n".join(
        [
            f"# Start to first training step, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python -m benchmarks.startup WORK_DIR --runs {options.runs}`",
            "",
            f"{machine()}. A prepared store of 128 synthetic utterances, batches of 88 chunks. Seconds, "
            "median (least to greatest) over runs in turned order; the page cache is warm.",
            "",
            table(["part", *kinds], rows),
        ]
    )
    print(text)
    print(write_results("startup", text, {"machine": machine(), "samples": samples}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        # Ray's workers import the marks by name, not from __main__.
        from benchmarks.startup import inside as run_inside

        run_inside(sys.argv[2:])
    else:
        main()
