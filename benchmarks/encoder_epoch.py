"""An epoch over an encoder's chunk statistics: ``python -m benchmarks.encoder_epoch SOURCE WORK_DIR``.

SOURCE is a small store that ``prepare --encoder`` made. ``benchmarks.made_store`` repeats it to 100,000
utterances, of which 40,000 are unlabeled; DeepEmoCluster trains one epoch on them as ``raydec.train`` does by
default, in its own process and with two Ray workers. The page shows the seconds of every part and the peak
memory of every kind of process.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.made_store import make_store
from benchmarks.msp_sized import attempt
from benchmarks.report import argument_parser, machine, table, write_results


def trained(store: Path, work: Path, num_workers: int, settings: list[str]) -> dict[str, Any]:
    """Time and memory of a training of one epoch."""
    name = f"workers-{num_workers}"
    shutil.rmtree(work / "runs" / name, ignore_errors=True)
    given = [f"data.store={store}", f"output_dir={work / 'runs'}", f"name={name}", "training.epochs=1"]
    command = [sys.executable, "-m", "raydec.train", *given, f"ray.num_workers={num_workers}", *settings]
    result = attempt(command, work / f"{name}.log")
    if result["status"]:
        raise SystemExit(f"training ended with {result['status']}; see {work / name}.log")
    (line,) = (work / "runs" / name / "metrics.jsonl").read_text().splitlines()
    parts = {key.removeprefix("time/"): value for key, value in json.loads(line).items() if "time/" in key}
    return result | {"parts": parts}


def main() -> None:
    """Make the store, train, print and write the page."""
    parser = argument_parser(__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--settings", nargs="*", default=[], help="key=value of raydec.train")
    options = parser.parse_args()
    work: Path = options.work_dir.absolute()
    counts = {
        "train": options.utterances * 6 // 10,
        "unlabeled": options.utterances * 4 // 10,
        "validation": options.utterances // 20,
    }
    begun = time.monotonic()
    store = make_store(options.source, work / "store", counts)
    print(f"{time.monotonic() - begun:.0f} s for the store", flush=True)
    gib = sum(file.stat().st_size for file in store.iterdir()) / 2**30
    runs = {str(number): trained(store, work, number, options.settings) for number in options.workers}
    numbers = {"machine": machine(), "counts": counts, "store_gib": gib, "runs": runs}
    text = page(numbers, sys.argv[3:])
    print(text)
    print(write_results("encoder-epoch", text, numbers))


def page(numbers: dict[str, Any], arguments: list[str]) -> str:
    """The page in Markdown."""
    runs = numbers["runs"]
    parts = sorted({part for run in runs.values() for part in run["parts"]})
    seconds = [
        [part.removesuffix("_s"), *(f"{run['parts'].get(part) or 0:.1f}" for run in runs.values())]
        for part in parts
    ]
    seconds.append(["the whole command", *(f"{run['wall_s']:.0f}" for run in runs.values())])
    memory = [
        [workers, kind, *(f"{value:,}" for value in peak)]
        for workers, run in runs.items()
        for kind, peak in sorted(run["peak_mib"].items())
    ]
    counts = ", ".join(f"{count:,} {split}" for split, count in numbers["counts"].items())
    return "\n".join(
        [
            f"# An epoch over an encoder's chunk statistics, {time.strftime('%Y-%m-%d')}",
            "",
            f"`{' '.join(['python -m benchmarks.encoder_epoch SOURCE WORK_DIR', *arguments])}`",
            "",
            f"{numbers['machine']}. Utterances: {counts}; the store has {numbers['store_gib']:.1f} GiB.",
            "",
            table(["seconds", *(f"`ray.num_workers={workers}`" for workers in runs)], seconds),
            "",
            "Peak memory, MiB, sampled once a second as proportional set size; the largest process of each "
            "kind. The mapped store counts in the last column only:",
            "",
            table(["workers", "process", "anonymous", "shared", "all"], memory),
        ]
    )


if __name__ == "__main__":
    main()
