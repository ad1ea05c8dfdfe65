"""An epoch of MSP-Podcast v1.6's size on one GPU: ``python -m benchmarks.gpu WORK_DIR [--scale 1.0]``.

Needs only torch and raydec: raydec runs without Ray (``ray.num_workers=0``), and K-means in torch unless cuML
is installed. Makes a store of 34,280 labeled and 40,000 unlabeled artificial utterances (9 GB; ``--scale``
makes it smaller), then measures, in an order that is reversed in every round:

* ``raydec bf16`` and ``raydec fp32``: cycles of ``python -m raydec.train``, and how busy the GPU was,
* ``baseline``: the published data path and loop with 12 loader processes, over ``--baseline-utterances``
  utterances; its time is scaled to the whole set, as the page states.

``--device cpu --scale 0.001`` tries the script itself on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.epoch import RAYDEC, Samples, cycle, loop_command, make_demo_store, run_loop, run_raydec
from benchmarks.floors import measure_floors
from benchmarks.made_store import RELEASE_1_6, make_store
from benchmarks.report import argument_parser, machine, machine_lock, shown, spread, table, write_results

PRECISIONS = ("bf16", "fp32")


class BusyWatch:
    """Share of time in which the GPU was busy, sampled with nvidia-smi every 0.2 s."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi"):
            query = [
                "nvidia-smi",
                "--query-gpu=utilization.gpu",
                "--format=csv,noheader,nounits",
                "-lms",
                "200",
            ]
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self.samples.append((time.perf_counter(), float(line)))

    def end(self, last_s: float) -> float | None:
        """Stop; the mean over the last seconds, in percent."""
        if self._process is None:
            return None
        self._process.terminate()
        since = time.perf_counter() - last_s
        values = [value for moment, value in self.samples if moment >= since]
        return statistics.fmean(values) if values else None


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds."""
    import torch

    work: Path = options.work_dir.absolute()
    seed_store = make_demo_store(work, 16, 16)
    counts = {split: max(64, int(number * options.scale)) for split, number in RELEASE_1_6.items()}
    counts["test"] = 64
    store = make_store(seed_store, work / f"made-{options.scale}", counts)
    few = {split: min(number, options.baseline_utterances) for split, number in counts.items()}
    small = make_store(seed_store, work / f"made-few-{options.baseline_utterances}-{options.scale}", few)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    floors = measure_floors(torch.device(options.device), dtype)
    samples: dict[str, Samples] = {name: [] for name in (*PRECISIONS, "baseline")}
    busy: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for number in range(options.rounds):
        for name in samples if number % 2 == 0 else reversed(samples):
            with machine_lock(options.lock):
                if name == "baseline":
                    command = loop_command(
                        name,
                        small,
                        work,
                        epochs=2,
                        threads=0,
                        batch=64,
                        loaders=options.loaders,
                        device=options.device,
                    )
                    samples[name] += run_loop(command)
                    continue
                watch = BusyWatch()
                settings = [*RAYDEC["raydec, no Ray"], f"training.precision={name}"]
                got = run_raydec(settings, store, work, options.epochs, 0)
                share = watch.end(sum(cycle(sample) for sample in got))
                samples[name] += got
                busy[name] += [share] if share is not None else []
            print(f"round {number + 1}: {name}: {statistics.median(map(cycle, got)):.1f} s", flush=True)
    return {
        "machine": machine(),
        "utterances": counts,
        "baseline_utterances": few,
        "floors": vars(floors),
        "samples": samples,
        "busy_percent": busy,
    }


def page(numbers: dict[str, Any], command: str) -> str:
    """The Markdown of a measurement."""
    chunks = 11 * (numbers["utterances"]["train"] + numbers["utterances"]["unlabeled"])
    few = 11 * (numbers["baseline_utterances"]["train"] + numbers["baseline_utterances"]["unlabeled"])
    rows = []
    for name, taken in numbers["samples"].items():
        scale = chunks / few if name == "baseline" else 1.0
        seconds = spread([cycle(sample) * scale for sample in taken])
        phases = [
            f"{statistics.median(s[p] for s in taken) * scale:.2f}"
            for p in ("embed_s", "kmeans_s", "train_s", "validate_s")
        ]
        busy = numbers["busy_percent"].get(name)
        ccc = shown(spread([sample["ccc"] for sample in taken]), 4)
        rows.append([name, shown(seconds), *phases, f"{statistics.median(busy):.0f}%" if busy else "-", ccc])
    header = ["loop", "epoch, s", "embed, s", "kmeans, s", "train, s", "validate, s", "GPU busy", "CCC"]
    return "\n".join(
        [
            f"# One GPU, {time.strftime('%Y-%m-%d')}",
            "",
            f"`{command}`",
            "",
            f"{numbers['machine']}. {numbers['utterances']}: {chunks:,} chunks embedded, clustered and "
            f"trained once per epoch. The baseline ran on {few:,} of them and is scaled up. Fastest "
            f"convolution {numbers['floors']['gflops']:,.0f} GFLOP/s, "
            f"copy {numbers['floors']['gbytes']:,.0f} GB/s.",
            "",
            table(header, rows),
        ]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3, help="per process; the first is not counted")
    parser.add_argument("--loaders", type=int, default=12)
    parser.add_argument("--baseline-utterances", type=int, default=1000, help="of each split")
    parser.add_argument("--lock", help="file to lock around each contender, on a shared machine")
    options = parser.parse_args()
    numbers = measure(options)
    text = page(
        numbers, f"python -m benchmarks.gpu WORK_DIR --scale {options.scale} --device {options.device}"
    )
    print(text)
    print(json.dumps(numbers["busy_percent"]))
    print(write_results(f"gpu-{options.device}", text, numbers))


if __name__ == "__main__":
    sys.exit(main())
