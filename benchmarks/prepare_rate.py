"""The rate of ``prepare`` and of a bare loop: ``python -m benchmarks.prepare_rate SPEECH_DIR WORK_DIR``.

The corpus is that of ``benchmarks.msp_sized``: FLAC files of 2.75 to 11 s that join recordings under
SPEECH_DIR. The bare loop is soundfile, soxr and torchaudio's MelSpectrogram, float16 frames appended to one
file and nothing else: no checks, checksums, statistics, warnings, or atomic writes. They take turns, first in
one process each, then as ``prepare --workers N``, with its start, and the bare loop in N processes. CPU
seconds are those of all processes; on a busy machine they are more reliable than files per second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.predict import descendants
from benchmarks.report import argument_parser, machine, shown, spread, table, write_results
from raydec.features.front_end import FrontEnd

Timing = dict[str, float]


def bare_loop(files: list[Path], out: Path) -> Timing:
    """Mel frames of files in one thread; timed after a first file, which triggers the imports."""
    import numpy as np
    import soundfile
    import soxr
    import torch
    import torchaudio

    torch.set_num_threads(1)
    transform = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=512, hop_length=256, n_mels=128, norm="slaney", mel_scale="slaney"
    )

    def run(some: list[Path]) -> None:
        with out.open("wb") as target:
            for path in some:
                samples, rate = soundfile.read(path, dtype="float32")
                samples = soxr.resample(samples, rate, 16_000)
                mel = transform(torch.from_numpy(samples / np.abs(samples).max()))
                target.write(mel.T.to(torch.float16).numpy().data)

    run(files[:1])
    return timed(lambda: run(files))


def shards_alone(corpus: Path, store: Path, num_files: int, front_end: FrontEnd | None = None) -> Timing:
    """What ``prepare --workers 0`` does between reading the labels and merging the shards."""
    from raydec.corpus.readers import read_corpus
    from raydec.features.mel_front_end import MelFrontEnd
    from raydec.features.shards import ShardPlan, plan_shards, write_shard

    front_end = front_end or MelFrontEnd()
    store.mkdir(exist_ok=True)
    planned = [one for plan in plan_shards(read_corpus(corpus).table) for one in plan.utterances]
    write_shard(ShardPlan(0, tuple(planned[:1])), store, front_end)
    plan = ShardPlan(0, tuple(planned[:num_files]))
    return timed(lambda: write_shard(plan, store, front_end))


def timed(work: Callable[[], Any]) -> Timing:
    """Seconds of a call, and of this process's CPU in it."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s}


def bare_processes(files: list[Path], num: int, work: Path) -> Timing:
    """The bare loop in ``num`` processes, each with a slice of the corpus."""
    with ProcessPoolExecutor(num, mp_context=get_context("spawn")) as pool:
        outs = [work / f"bare-{rank}.raw" for rank in range(num)]
        done = list(pool.map(bare_loop, [files[rank::num] for rank in range(num)], outs))
    return {"wall_s": max(d["wall_s"] for d in done), "cpu_s": sum(d["cpu_s"] for d in done)}


def command(arguments: list[str], every_s: float = 0.2) -> Timing:
    """Run a command: its seconds, and CPU seconds of it and its descendants, which must end before it."""
    begun = time.perf_counter()
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    used: dict[int, float] = {}
    while child.poll() is None:
        used |= {member: seconds for member in descendants(child.pid) if (seconds := cpu_seconds(member))}
        time.sleep(every_s)
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with status {child.returncode}")
    return {"wall_s": time.perf_counter() - begun, "cpu_s": sum(used.values())}


def cpu_seconds(process: int) -> float:
    """CPU time of a process so far, without its children; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure in turns, print and write the page."""
    from benchmarks.msp_sized import write_corpus  # not at the top, because it imports this module

    parser = argument_parser(__doc__)
    parser.add_argument("speech_dir", type=Path)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--pool", type=int, default=1500, help="different recordings")
    parser.add_argument("--alone", type=int, default=512, help="files of a turn in one process")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    work: Path = options.work_dir.absolute()
    corpus, store = work / "corpus", work / "store"
    if not corpus.exists():
        write_corpus(options.speech_dir, corpus, {"train": options.files}, options.pool)
    files = sorted((corpus / "Audios").iterdir())
    prepare = [sys.executable, "-m", "raydec.prepare", str(corpus), str(store), "--restart", "--workers"]
    turns: dict[str, tuple[int, Callable[[], Timing]]] = {
        "bare loop, 1 process": (
            options.alone,
            lambda: bare_loop(files[: options.alone], work / "bare.raw"),
        ),
        "raydec, 1 process": (options.alone, lambda: shards_alone(corpus, work / "alone", options.alone)),
        f"bare loop, {options.workers} processes": (
            len(files),
            lambda: bare_processes(files, options.workers, work),
        ),
        f"`prepare --workers {options.workers}`, with its start": (
            len(files),
            lambda: command([*prepare, str(options.workers)]),
        ),
    }
    rounds = [{name: turn() for name, (_, turn) in turns.items()} for _ in range(options.rounds)]
    numbers = {
        "machine": machine(),
        "files": {name: num for name, (num, _) in turns.items()},
        "rounds": rounds,
    }
    text = page(numbers, sys.argv[3:])
    print(text)
    print(write_results("prepare-rate", text, numbers))


def page(numbers: dict[str, Any], arguments: list[str]) -> str:
    """The page in Markdown."""
    rounds, names = numbers["rounds"], list(numbers["files"])
    rows = []
    for number, name in enumerate(names):
        num = numbers["files"][name]
        bare = names[number - number % 2]
        cells = [
            shown(spread([1000 * one[name]["cpu_s"] / num for one in rounds])),
            shown(spread([num / one[name]["wall_s"] for one in rounds]), 0),
            *(
                shown(spread([one[bare][key] / one[name][key] for one in rounds]))
                for key in ("cpu_s", "wall_s")
            ),
        ]
        rows.append([name, f"{num:,}", *cells])
    header = ["", "files", "ms of CPU a file", "files/s", "rate by CPU, of the bare loop", "by the clock"]
    return "\n".join(
        [
            f"# The rate of prepare, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python -m benchmarks.prepare_rate SPEECH_DIR WORK_DIR {' '.join(arguments)}`",
            "",
            f"{numbers['machine']}. Median and range of {len(rounds)} rounds, in which all take turns.",
            "",
            table(header, rows),
        ]
    )


if __name__ == "__main__":
    main()
