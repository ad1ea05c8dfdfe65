"""Measures the time of an epoch: ``python -m benchmarks.epoch WORK_DIR [--rounds 3]``.

Contenders run one after the other, in an order that is reversed in every round, each in its own processes:

* ``baseline``: the published data path and loop (benchmarks/loops.py),
* ``plain``, ``channels_last``, ``compiled``: that loop without Ray over tensors in memory,
* ``raydec, no Ray``, ``raydec, 1 worker``, ``raydec, 2 workers``: ``python -m raydec.train``, whole cycles
  from one line of metrics.jsonl to the next, checkpoints and records included.

All do the same work: the published network and recipe, one attribute, the same chunks. The first epoch of
each process is a warm-up and not counted. Prints the floors; writes JSON and a page to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.floors import Floors, measure_floors, touch
from benchmarks.report import (
    argument_parser,
    machine,
    machine_lock,
    shown,
    spread,
    table,
    touched,
    write_results,
)

LOOPS = ("baseline", "plain", "channels_last", "compiled")
RAYDEC = {
    "raydec, no Ray": ["ray.num_workers=0"],
    "raydec, 1 worker": ["ray.num_workers=1"],
    "raydec, 2 workers": ["ray.num_workers=2"],
}
PHASES = ("embed_s", "kmeans_s", "train_s", "validate_s")
SETTINGS = [
    "data.attributes=[arousal]",
    "training.recipe=reference",
    "clustering.backend=torch",
    "clustering.tolerance=0",
    "training.keep_checkpoints=1",
]
# Threads that spin at barriers would slow down every contender if another process needs the core.
ENVIRONMENT = {
    **os.environ,
    "GOMP_SPINCOUNT": "1000",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

Samples = list[dict[str, float]]


def make_demo_store(work: Path, num_train: int, num_unlabeled: int) -> Path:
    """A feature store of the synthetic demo corpus, of the requested size."""
    from raydec.corpus.demo import write_demo_corpus
    from raydec.corpus.readers import read_corpus
    from raydec.preparation import prepare_store

    store = work / f"store-{num_train}-{num_unlabeled}"
    corpus = write_demo_corpus(
        work / f"corpus-{num_train}-{num_unlabeled}",
        num_train=num_train,
        num_validation=max(8, num_train // 4),
        num_test=8,
        num_unlabeled=num_unlabeled,
    )
    unlabeled = [corpus / "Unlabeled"] if num_unlabeled else []
    prepare_store(read_corpus(corpus, unlabeled=unlabeled), store, num_workers=0, quiet=True)
    return store


def loop_command(
    kind: str,
    store: Path,
    work: Path,
    *,
    epochs: int,
    threads: int,
    batch: int,
    loaders: int = 0,
    device: str = "cpu",
) -> list[str]:
    """``python -m benchmarks.loops`` on a store."""
    command = [sys.executable, "-m", "benchmarks.loops", kind, str(store), str(work / f"files-{store.name}")]
    command += ["--epochs", str(epochs), "--loaders", str(loaders), "--threads", str(threads)]
    return [*command, "--device", device, "--batch-utterances", str(batch)]


def run_loop(command: list[str]) -> Samples:
    """Epochs of one of the loops of benchmarks/loops.py, without the first."""
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()][1:]


def train_command(store: Path, runs: Path, name: str) -> list[str]:
    """``python -m raydec.train`` on a store, into a folder of runs."""
    start = [sys.executable, "-m", "raydec.train"]
    return [*start, f"data.store={store}", f"output_dir={runs}", f"name={name}"]


def run_raydec(settings: list[str], store: Path, work: Path, epochs: int, threads: int) -> Samples:
    """Epochs of ``python -m raydec.train``; ``cycle_s`` runs from one written epoch to the next."""
    runs = work / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    workers = int(settings[0].split("=")[1])
    given = [f"ray.cpus_per_worker={max(1, threads // max(workers, 1))}"] if threads else []
    command = train_command(store, runs, "epoch")
    command += [*SETTINGS, *settings, *given, f"training.epochs={epochs}"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    metrics, seen = runs / "epoch" / "metrics.jsonl", []
    while process.poll() is None:
        written = metrics.read_text().count("\n") if metrics.exists() else 0
        seen += [time.perf_counter()] * (written - len(seen))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr.read()[-2000:]}")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    samples = []
    for number in range(1, epochs):
        sample = {
            name.removeprefix("time/"): value for name, value in lines[number].items() if value is not None
        }
        sample["ccc"] = sample["valid/ccc"]
        sample["cycle_s"] = seen[number] - seen[number - 1]
        samples.append(sample)
    return samples


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds; samples by contender."""
    import torch

    work: Path = options.work_dir.absolute()
    with machine_lock(options.lock):
        store = make_demo_store(work, options.train, options.unlabeled)
        floors = measure_floors(torch.device("cpu"))
    names = [name for name in [*LOOPS, *RAYDEC] if name not in options.skip]
    samples: dict[str, Samples] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            with machine_lock(options.lock):
                touch(options.touch_gib)
                if name in LOOPS:
                    command = loop_command(
                        name,
                        store,
                        work,
                        epochs=options.epochs,
                        threads=options.threads,
                        batch=options.batch,
                        loaders=options.loaders,
                    )
                    got = run_loop(command)
                else:
                    settings = [*RAYDEC[name], f"training.batch_utterances={options.batch}"]
                    got = run_raydec(settings, store, work, options.epochs, options.threads)
            samples[name] += [sample | {"round": number} for sample in got]
            whole = statistics.median(cycle(sample) for sample in got)
            print(f"round {number + 1}: {name}: {whole:.2f} s an epoch", flush=True)
    sizes = {
        split: options.train if split == "train" else options.unlabeled for split in ("train", "unlabeled")
    }
    return {
        "machine": machine(),
        "utterances": sizes,
        "batch": options.batch,
        "touch_gib": options.touch_gib,
        "floors": vars(floors),
        "samples": samples,
    }


def cycle(sample: dict[str, float]) -> float:
    """Seconds of one whole epoch."""
    return sample.get("cycle_s", sample["epoch_s"])


def paired_ratio(samples: dict[str, Samples], slow: str, fast: str, of=cycle) -> dict[str, float]:
    """Ratio of two contenders' times, round by round."""

    def by_round(name: str) -> dict[float, float]:
        rounds = {sample["round"] for sample in samples[name]}
        return {r: statistics.median(of(s) for s in samples[name] if s["round"] == r) for r in rounds}

    slower, faster = by_round(slow), by_round(fast)
    return spread([slower[r] / faster[r] for r in sorted(slower.keys() & faster.keys())])


def page(numbers: dict[str, Any], command: str) -> str:
    """The Markdown of a measurement."""
    samples, sizes = numbers["samples"], numbers["utterances"]
    floors = Floors(**numbers["floors"])
    chunks = 11 * (sizes["train"] + sizes["unlabeled"])
    floor = chunks * (floors.chunk_seconds(train=True) + floors.chunk_seconds(train=False))
    rows = []
    for name, taken in samples.items():
        epoch = spread([cycle(sample) for sample in taken])
        phases = [f"{statistics.median(sample[phase] for sample in taken):.2f}" for phase in PHASES]
        rate = spread([chunks / sample["train_s"] for sample in taken])
        last = max(sample.get("epoch", 0) for sample in taken)
        ccc = statistics.median(sample["ccc"] for sample in taken if sample.get("epoch", 0) == last)
        rows.append(
            [name, shown(epoch), *phases, shown(rate, 0), f"{floor / epoch['median']:.0%}", f"{ccc:.3f}"]
        )
    header = ["loop", "epoch, s", *(f"{phase[:-2]}, s" for phase in PHASES), "trained chunks/s"]
    train_seconds = {name: statistics.median(s["train_s"] for s in samples[name]) for name in samples}
    best = min((name for name in samples if name in LOOPS[1:]), key=train_seconds.__getitem__, default=None)
    lines = [
        f"# Epoch, {time.strftime('%Y-%m-%d')}",
        "",
        f"`{command}`",
        "",
        f"{numbers['machine']}. {sizes['train']} labeled and {sizes['unlabeled']} unlabeled synthetic "
        f"utterances, {chunks} chunks, trained once each per epoch in batches of "
        f"{11 * numbers['batch']}; the published network and recipe. Medians (least to greatest) over rounds "
        f"in turned order{touched(numbers['touch_gib'])}; the first epoch of each is not counted.",
        "",
        f"Floors: fastest plain convolution {floors.gflops:.0f} GFLOP/s, copy {floors.gbytes:.1f} GB/s; "
        f"an epoch (0.29 GFLOP a chunk to embed, 0.88 to train) cannot take less than {floor:.2f} s.",
        "",
        table([*header, "of the floor", "validation CCC, last epoch"], rows),
        "",
        table(["ratio of times, by round", "median (least to greatest)"], ratio_rows(samples, best)),
    ]
    return "\n".join(lines)


def ratio_rows(samples: dict[str, Samples], best: str | None) -> list[list[str]]:
    """The ratios for which raydec has targets."""

    def train(sample: dict[str, float]) -> float:
        return sample["train_s"]

    wanted = [
        ("baseline / raydec, no Ray", "baseline", "raydec, no Ray", cycle),
        ("baseline / raydec, 1 worker", "baseline", "raydec, 1 worker", cycle),
        ("raydec with Ray, 1 worker / no Ray", "raydec, 1 worker", "raydec, no Ray", cycle),
        ("1 worker of 2 threads / 2 workers of 1 thread", "raydec, 1 worker", "raydec, 2 workers", cycle),
        ("same, training alone", "raydec, 1 worker", "raydec, 2 workers", train),
    ]
    if best is not None:
        wanted.append(
            (f"training step: best bare loop ({best}) / raydec, no Ray", best, "raydec, no Ray", train)
        )
    return [
        [label, shown(paired_ratio(samples, slow, fast, of))]
        for label, slow, fast, of in wanted
        if slow in samples and fast in samples
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="per process; the first is not counted")
    parser.add_argument("--train", type=int, default=64, help="labeled utterances")
    parser.add_argument("--unlabeled", type=int, default=64, help="unlabeled utterances")
    parser.add_argument("--batch", type=int, default=64, help="utterances per batch")
    parser.add_argument("--touch-gib", type=float, default=0.0, help="memory to use just before each process")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--loaders", type=int, default=0, help="loader processes of the baseline")
    parser.add_argument("--skip", nargs="*", default=[], help="contenders to leave out")
    parser.add_argument("--lock", help="file to lock around each contender, on a shared machine")
    parser.add_argument("--name", default="epoch", help="of the page in benchmarks/results")
    options = parser.parse_args()
    numbers = measure(options)
    text = page(numbers, f"python -m benchmarks.epoch WORK_DIR {shlex.join(sys.argv[2:])}")
    print(text)
    print(write_results(options.name, text, numbers))


if __name__ == "__main__":
    main()
