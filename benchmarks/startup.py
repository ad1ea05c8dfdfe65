"""Measures the time to the first training step: ``python -m benchmarks.startup WORK_DIR [--runs 5]``.

Runs the same code as ``python -m raydec.train`` on a prepared store of the synthetic demo corpus, and records
the time at several marks, in the driver and in the training worker, alternately with and without Ray.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.epoch import ENVIRONMENT, make_demo_store
from benchmarks.floors import touch
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

PARTS = {
    "Python and arguments": ("begin", "parsed"),
    "imports": ("parsed", "imported"),
    "store open and checks (driver)": ("imported", "resolved"),
    "Ray start": ("resolved", "ray"),
    "K-means actor and worker start": ("ray", "worker"),
    "store open (worker)": ("worker", "opened"),
    "network and optimisers": ("opened", "built"),
    "first embedding pass and K-means": ("built", "clustered"),
    "first batch and step": ("clustered", "step"),
}


def measured(settings: list[str], store: Path, work: Path) -> dict[str, float]:
    """Seconds of each part of one start, and their total."""
    runs = work / "runs-startup"
    shutil.rmtree(runs, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.startup_inside", f"data.store={store}"]
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
    parser.add_argument("--touch-gib", type=float, default=8.0, help="memory to use just before each run")
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
                touch(options.touch_gib)
                samples[kind].append(measured(kinds[kind], store, work))
            print(f"run {number + 1}: {kind}: {samples[kind][-1]['total']:.1f} s", flush=True)
    rows = [
        [part, *(shown(spread([sample[part] for sample in samples[kind]]), 1) for kind in kinds)]
        for part in [*PARTS, "total"]
    ]
    command = f"python -m benchmarks.startup WORK_DIR --runs {options.runs} --touch-gib {options.touch_gib:g}"
    text = "\n".join(
        [
            f"# Start to first training step, {time.strftime('%Y-%m-%d')}",
            "",
            f"`{command}`",
            "",
            f"{machine()}. A prepared store of 128 synthetic utterances, batches of 88 chunks. Seconds, "
            "median (least to greatest) over runs in turned order; the page cache is warm"
            f"{touched(options.touch_gib)}.",
            "",
            table(["part", *kinds], rows),
        ]
    )
    print(text)
    print(write_results("startup", text, {"machine": machine(), "samples": samples}))


if __name__ == "__main__":
    main()
