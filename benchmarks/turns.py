"""Epochs of several contenders in turns: ``python -m benchmarks.turns WORK_DIR [--rounds 10]``.

The contenders are those of benchmarks/epoch.py: the published loop, and raydec without and with Ray. All are
started and stay alive, but only one runs at a time, for one epoch; all processes of the others, Ray's
included, are stopped (SIGSTOP). Therefore changes in the speed of a shared machine affect all contenders
equally, unlike with whole runs one after the other.

An epoch is measured from the moment a contender may run until it has written its next epoch, so it includes
checkpoint, metrics and report. The first two epochs of each contender are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.epoch import (
    LOOPS,
    RAYDEC,
    SETTINGS,
    loop_command,
    make_demo_store,
    train_command,
)
from benchmarks.report import argument_parser, machine, machine_lock, shown, spread, table, write_results

_WARM_EPOCHS = 2
# The user's default environment, unlike benchmarks/epoch.py, which sets spinning and niceness.
_ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}


class Contender:
    """A training run that writes a line per epoch, and can be stopped and continued.

    Args:
        name: as in the table.
        command: its command line.
        lines: the file with those lines; None if it prints them.
        log: file for its output.
    """

    def __init__(self, name: str, command: list[str], lines: Path | None, log: Path) -> None:
        self.name = name
        self._lines = lines or log
        self._stopped: list[psutil.Process] = []
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as errors:
            self._process = psutil.Popen(
                command, stdout=out if lines is None else subprocess.DEVNULL, stderr=errors, env=_ENVIRONMENT
            )
        self._log = log

    def epoch(self) -> dict[str, float]:
        """Let it run for one epoch: ``cycle_s`` as measured here, ``train_s`` as reported by the run.

        Of the times that it reports, only ``train_s`` cannot include the time in which it was stopped.
        """
        number = len(self._written())
        begun = time.perf_counter()
        self._resume()
        self._wait(number + 1)
        cycle_s = time.perf_counter() - begun
        self.stop()
        line = json.loads(self._written()[number])
        return {"cycle_s": cycle_s, "train_s": line.get("time/train_s", line.get("train_s"))}

    def warm_up(self) -> None:
        """Let it start and run the warm-up epochs, then stop it."""
        self._wait(_WARM_EPOCHS)
        self.stop()

    def stop(self) -> None:
        """Stop all its processes (SIGSTOP)."""
        self._stopped = [self._process, *self._process.children(recursive=True)]
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        """End it and all its processes."""
        self._resume()
        self._process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            self._process.wait(60)
            return
        self._process.kill()

    def _resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _written(self) -> list[str]:
        return self._lines.read_text().splitlines() if self._lines.exists() else []

    def _wait(self, epochs: int) -> None:
        while len(self._written()) < epochs:
            if self._process.poll() is not None:
                raise SystemExit(f"{self.name} ended:\n{self._log.with_suffix('.err').read_text()[-2000:]}")
            time.sleep(0.02)


def start(name: str, store: Path, work: Path, options: argparse.Namespace) -> Contender:
    """Start one contender with more epochs than it will run."""
    runs = work / f"turns-{name.replace(' ', '-').replace(',', '')}"
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    epochs = options.rounds + _WARM_EPOCHS + 10
    if name in LOOPS:
        command = loop_command(name, store, work, epochs=epochs, threads=options.threads, batch=options.batch)
        return Contender(name, command, None, runs / "log")
    workers = int(RAYDEC[name][0].split("=")[1])
    threads = max(1, options.threads // max(workers, 1))
    command = [*train_command(store, runs, "turns"), *SETTINGS, *RAYDEC[name]]
    command += [f"ray.cpus_per_worker={threads}", f"training.epochs={epochs}"]
    command += [f"training.batch_utterances={options.batch}"]
    return Contender(name, command, runs / "turns" / "metrics.jsonl", runs / "log")


@contextlib.contextmanager
def started(
    names: list[str], store: Path, work: Path, options: argparse.Namespace
) -> Iterator[list[Contender]]:
    """Start all contenders one after the other, warm them up and stop them; end them after the block."""
    contenders: list[Contender] = []
    try:
        for name in names:
            contenders.append(start(name, store, work, options))
            contenders[-1].warm_up()
        yield contenders
    finally:
        for contender in contenders:
            contender.end()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; returns an epoch's times by contender for each round."""
    work: Path = options.work_dir.absolute()
    rounds: list[dict[str, dict[str, float]]] = []
    with machine_lock(options.lock):
        store = make_demo_store(work, options.train, options.unlabeled)
        with started(options.contenders, store, work, options) as contenders:
            for number in range(options.rounds):
                turn = contenders if number % 2 == 0 else contenders[::-1]
                rounds.append({contender.name: contender.epoch() for contender in turn})
                cycles = (f"{name} {times['cycle_s']:.2f} s" for name, times in rounds[-1].items())
                print(f"round {number + 1}: {', '.join(cycles)}", flush=True)
    sizes = {"train": options.train, "unlabeled": options.unlabeled}
    return {"machine": machine(), "utterances": sizes, "batch": options.batch, "rounds": rounds}


def quarters(ratios: list[float]) -> list[str]:
    """Median, interquartile range, and full range."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return [f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{min(ratios):.3f} to {max(ratios):.3f}"]


def page(numbers: dict[str, Any], command: str) -> str:
    """The Markdown of a measurement."""
    rounds, sizes = numbers["rounds"], numbers["utterances"]
    names = list(rounds[0])
    rows = []
    for name in names:
        cycle = spread([times[name]["cycle_s"] for times in rounds])
        train = spread([times[name]["train_s"] for times in rounds])
        rows.append([name, shown(cycle), shown(train)])

    def ratios(slow: str, fast: str, seconds: str) -> list[str]:
        return quarters([times[slow][seconds] / times[fast][seconds] for times in rounds])

    lines = []
    for one, other in itertools.combinations(names, 2):
        slow, fast = (one, other) if one in LOOPS else (other, one)
        lines.append([f"{slow} / {fast}", *ratios(slow, fast, "cycle_s")])
        lines.append(["the same, training alone", *ratios(slow, fast, "train_s")])
    return "\n".join(
        [
            f"# Epochs in turns, {time.strftime('%Y-%m-%d')}",
            "",
            f"`{command}`",
            "",
            f"{numbers['machine']}. {sizes['train']} labeled and {sizes['unlabeled']} unlabeled synthetic "
            f"utterances, {11 * (sizes['train'] + sizes['unlabeled'])} chunks, batches of "
            f"{11 * numbers['batch']}; the published network and recipe. {len(rounds)} rounds of one epoch "
            "each, the order turned every round; all contenders alive, all but one stopped. Seconds.",
            "",
            table(["contender", "epoch: median (least to greatest)", "training alone"], rows),
            "",
            table(["ratio of times in the same round", "median", "middle half", "range"], lines),
        ]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--contenders", nargs="+", default=["baseline", *list(RAYDEC)[:2]])
    parser.add_argument("--train", type=int, default=64, help="labeled utterances")
    parser.add_argument("--unlabeled", type=int, default=64, help="unlabeled utterances")
    parser.add_argument("--batch", type=int, default=16, help="utterances per batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--lock", help="file to lock while measuring, on a shared machine")
    parser.add_argument("--name", default="turns", help="of the page in benchmarks/results")
    options = parser.parse_args()
    numbers = measure(options)
    text = page(numbers, f"python -m benchmarks.turns WORK_DIR {shlex.join(sys.argv[2:])}".rstrip())
    print(text)
    print(write_results(options.name, text, numbers))


if __name__ == "__main__":
    main()
