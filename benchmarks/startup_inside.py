"""The work of ``python -m raydec.train`` up to its first step, with marks; run by :mod:`benchmarks.startup`.

A separate module, because everything that is imported at its top is part of the measurement.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def mark(folder: str, name: str) -> None:
    """Record the time at which a mark was first reached."""
    path = Path(folder) / f"mark-{name}"
    if not path.exists():
        path.write_text(repr(time.time()))


def timed_loop(config: Any, worker: Any, clusterer: Any, location: str) -> None:
    """:func:`raydec.runs.training_loop.train_loop` with marks."""
    mark(location, "worker")
    from raydec.learning.epoch import EpochRunner
    from raydec.runs import training_loop
    from raydec.runs.recorder import RunRecorder

    step, train, open_data = RunRecorder.step, EpochRunner._train, training_loop.open_data

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

    class MarkedTraining(training_loop.Training):
        def run(self) -> Any:
            mark(location, "built")
            return super().run()

    RunRecorder.step, EpochRunner._train = marked_step, marked_train  # type: ignore[method-assign]
    training_loop.open_data, training_loop.Training = marked_open, MarkedTraining  # type: ignore[misc]
    training_loop.train_loop(config, worker, clusterer, location)


def inside(arguments: list[str]) -> None:
    """The work of the driver of ``python -m raydec.train``, with marks."""
    from raydec.console.command_line import parse_config_arguments

    config = parse_config_arguments(arguments, verb="train", summary="")
    parsed = time.time()
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
        from raydec.learning.host import import_ahead
        from raydec.ray_runtime.session import start_ray

        import_ahead("raydec.ray_runtime.launch")
        start_ray(config.ray.address, config.ray.num_cpus, dashboard=False)
        mark(location, "ray")
        from raydec.ray_runtime.launch import train_on_ray

        train_on_ray(config, timed_loop, location)
    driver = {"parsed": parsed, "imported": imported, "resolved": resolved}
    for name, moment in driver.items():
        (folder.local / f"mark-{name}").write_text(repr(moment))


def run_here(config: Any, location: str) -> None:
    """Train in this process, without Ray, with marks."""
    from raydec.learning.clusterer import LocalClusterer
    from raydec.learning.host import prepare_host
    from raydec.learning.worker import LocalWorker

    prepare_host(config.ray.cpus_per_worker)
    worker = LocalWorker(Path(location))
    timed_loop(config, worker, LocalClusterer(worker, config.clustering), location)


if __name__ == "__main__":
    # Ray's workers import the marks by name, not from __main__.
    from benchmarks import startup_inside

    startup_inside.inside(sys.argv[1:])
