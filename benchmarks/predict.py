"""Predicts many linked files, kills the command half way, resumes it, and checks every row.

    python -m benchmarks.predict MODEL_DIR SPEECH_DIR SCRATCH_DIR [--files 20000] [--workers 2]

The files are hard links to the audio files under SPEECH_DIR (copies if SCRATCH_DIR is on another disk). The
command is run twice: first until half of the rows are stored, when it is killed with kill -9, then to the
end. The benchmark prints the speed and the peak memory of the command and all its child processes, sampled
once a second as proportional set size, which counts shared memory once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import argument_parser
from raydec.corpus.audio_files import list_audio

FOLDER_SIZE = 1000


def main() -> None:
    """Run both attempts and print the measurements as JSON."""
    parser = argument_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--workers", default="2")
    parser.add_argument("--stop-at", type=float, default=0.5, help="share of the files; 1 lets it end")
    options = parser.parse_args()
    pool = options.scratch / "pool"
    names = link_files(options.speech, pool, options.files)
    out = options.scratch / "out.parquet"
    command = [sys.executable, "-m", "raydec.predict", str(options.model), str(pool), "--out", str(out)]
    command += ["--workers", options.workers, "-v"]
    attempts = []
    if options.stop_at < 1:
        attempts.append(run(command, out, stop_at=int(options.files * options.stop_at)))
    attempts.append(run(command, out, stop_at=None))
    print(json.dumps({"attempts": attempts, "rows": check(out, names)}, indent=2))


def link_files(speech: Path, pool: Path, count: int) -> list[str]:
    """Link the recordings repeatedly until there are enough files, a thousand per folder."""
    sources = [file.path for file in list_audio(speech).files]
    names = []
    for number in range(count):
        source = sources[number % len(sources)]
        target = pool / f"{number // FOLDER_SIZE:03d}" / f"{number:06d}{Path(source).suffix}"
        names.append(str(target))
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    return names


def run(command: Sequence[str], out: Path, stop_at: int | None) -> dict[str, object]:
    """Run one attempt, which is killed with kill -9 as soon as ``stop_at`` files have rows."""
    begun = time.monotonic()
    log = out.with_suffix(".log")
    with log.open("w") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        samples: list[tuple[float, float, int]] = []
        while child.poll() is None:
            kept = count_rows(out.with_name(f".{out.name}.parts"))
            samples.append((time.monotonic() - begun, memory_mib(child.pid), kept))
            if stop_at is not None and kept >= stop_at:
                child.kill()
                break
            time.sleep(1.0)
        child.wait()
    working = [memory for _, memory, kept in samples if kept > samples[0][2]]
    tenths = [float(np.mean(part)) for part in np.array_split(working, 10) if len(part)]
    return {
        "status": child.returncode,
        "wall_s": round(time.monotonic() - begun, 1),
        "rows_before": samples[0][2],
        "rows_after": samples[-1][2],
        "memory_mib_by_tenth_of_the_time": [round(value) for value in tenths],
        "said": log.read_text().splitlines()[-3:],
    }


_counted: dict[Path, int] = {}


def count_rows(parts: Path) -> int:
    """Number of rows stored so far."""
    for part in parts.glob("part-*.arrow"):
        if part not in _counted:
            with pa.memory_map(str(part)) as source:
                _counted[part] = pa.ipc.open_file(source).read_all().num_rows
    return sum(_counted.values())


def memory_mib(process: int) -> float:
    """Proportional set size of a process and its descendants."""
    total_kib = 0
    for member in descendants(process):
        try:
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue
        total_kib += next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
    return total_kib / 1024


def descendants(process: int) -> Iterator[int]:
    """A process, its children, theirs, and so on."""
    yield process
    for children in Path("/proc").glob(f"{process}/task/*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue
        for child in found:
            yield from descendants(int(child))


def check(out: Path, names: Sequence[str]) -> dict[str, object]:
    """Whether every file has exactly one row, and links to one recording have one prediction."""
    table = pq.read_table(out)
    files = table["file"].to_pylist()
    scores: dict[int, list[float]] = {}
    first = table.column_names[3]
    for name, score in zip(files, table[first].to_pylist(), strict=True):
        if score is not None:
            scores.setdefault(os.stat(name).st_ino, []).append(score)
    spread = max((max(values) - min(values) for values in scores.values()), default=0.0)
    return {
        "rows": len(files),
        "missing": len(set(names) - set(files)),
        "duplicate": len(files) - len(set(files)),
        "in_order": files == list(names),
        "errors": table.num_rows - table["error"].null_count,
        "recordings": len(scores),
        "largest_difference_between_links_to_one_recording": spread,
    }


if __name__ == "__main__":
    main()
