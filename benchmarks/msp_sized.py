"""A whole run at the size of MSP-Podcast: ``python -m benchmarks.msp_sized SPEECH_DIR WORK_DIR``.

The corpus has as many utterances per split as MSP-Podcast v1.6, and 40,000 unlabeled ones: 90,362 FLAC files
of 2.75 to 11 s; ``--scale 0.1`` makes a tenth of them. Each is a hard link to one of ``--pool`` files that
join recordings of one speaker found under SPEECH_DIR (corpora in the layout of MSP-Podcast). Labels are those
of the recordings with noise, and every twenty utterances have a new speaker. Only the network is not of full
size: it has an eighth of the published channels.

The phases are prepare, train (three epochs, two Ray workers and the K-means actor, killed with kill -9 in the
second epoch, then resumed), evaluate, report, and predict of the test split. The page shows the time of each,
and the peak memory of each kind of process. Finished phases are not repeated: after an interruption, the same
command continues, and raydec resumes the interrupted phase if possible.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_store import RELEASE_1_6
from benchmarks.predict import descendants
from benchmarks.prepare_rate import bare_processes
from benchmarks.report import argument_parser, machine, table, write_results

SPLITS = {"train": "Train", "validation": "Development", "test": "Test1", "unlabeled": ""}
ATTRIBUTES = ("EmoAct", "EmoDom", "EmoVal")
UTTERANCES_PER_SPEAKER = 20
CHANNELS = (4, 4, 8, 8, 16, 16, 16)
PER_FOLDER = 1000
BARE_FILES = 500


def write_corpus(speech: Path, corpus: Path, counts: dict[str, int], pool_size: int, seed: int = 0) -> None:
    """Write the corpus: a pool of joined recordings, links to them, and the label file."""
    rng = np.random.default_rng(seed)
    pool = list(write_pool(speech, corpus.parent / "pool", pool_size, rng))
    rows: list[dict[str, Any]] = []
    number = 0
    for split, count in counts.items():
        for _ in range(count):
            source, known = pool[int(rng.integers(len(pool)))]
            name = f"{number:06d}.flac"
            if split == "unlabeled":
                target = corpus / "Unlabeled" / f"{number // PER_FOLDER:03d}" / name
            else:
                target = corpus / "Audios" / name
                labels = np.clip(known + rng.normal(0, 0.5, 3), 1, 7).round(3).tolist()
                speaker = {"SpkrID": number // UTTERANCES_PER_SPEAKER, "Gender": "Unknown"}
                given = {"FileName": name, "EmoClass": "X", "Split_Set": SPLITS[split]}
                rows.append(given | speaker | dict(zip(ATTRIBUTES, labels, strict=True)))
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.link(source, target)
            number += 1
    (corpus / "Labels").mkdir(exist_ok=True)
    with (corpus / "Labels" / "labels_consensus.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_pool(
    speech: Path, pool: Path, size: int, rng: np.random.Generator
) -> Iterator[tuple[Path, np.ndarray]]:
    """FLAC files of 2.75 to 11 s, with the mean labels of the joined recordings."""
    import soundfile

    pool.mkdir(parents=True, exist_ok=True)
    speakers = recordings_by_speaker(speech)
    for number in range(size):
        found = speakers[int(rng.integers(len(speakers)))]
        wanted_s, labels, joined = rng.uniform(2.75, 11), [], []
        rate, length_s = 0, 0.0
        while length_s < wanted_s:
            path, label = found[int(rng.integers(len(found)))]
            samples, rate = soundfile.read(path, dtype="float32")
            joined.append(samples)
            labels.append(label)
            length_s += len(samples) / rate
        path = pool / f"{number:05d}.flac"
        if not path.exists():
            soundfile.write(path, np.concatenate(joined)[: int(wanted_s * rate)], rate)
        yield path, np.mean(labels, axis=0)


def recordings_by_speaker(speech: Path) -> list[list[tuple[Path, list[float]]]]:
    """Labeled recordings under a folder, speaker by speaker."""
    found: dict[tuple[str, str], list[tuple[Path, list[float]]]] = {}
    for labels in sorted(speech.glob("*/Labels/labels_consensus.csv")):
        with labels.open(newline="") as file:
            for row in csv.DictReader(file):
                path = labels.parents[1] / "Audios" / row["FileName"]
                known = [float(row[name]) for name in ATTRIBUTES]
                found.setdefault((labels.parts[-3], row["SpkrID"]), []).append((path, known))
    if not found:
        raise SystemExit(
            f"{speech} contains no corpus in the layout of MSP-Podcast (*/Labels/labels_consensus.csv)"
        )
    return list(found.values())


def attempt(command: list[str], log: Path, stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Run a command to its end, or kill it with kill -9 once ``stop()`` is true.

    Returns:
        Its status, seconds, and peak MiB by kind of process: anonymous memory, shared memory (Ray's object
        store), and all memory including mapped files.
    """
    begun = time.monotonic()
    peaks: dict[str, list[float]] = {}
    with log.open("a") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        members: list[int] = []
        while child.poll() is None:
            members = list(descendants(child.pid))
            for kind, now in memory_by_kind(child.pid, members).items():
                peaks[kind] = [max(pair) for pair in zip(peaks.get(kind, now), now, strict=True)]
            if stop is not None and stop():
                child.kill()
                break
            time.sleep(1.0)
        child.wait()
    end_orphans(members)
    return {
        "status": child.returncode,
        "wall_s": round(time.monotonic() - begun, 1),
        "peak_mib": {kind: [round(value) for value in values] for kind, values in peaks.items()},
    }


def memory_by_kind(driver: int, members: list[int]) -> dict[str, list[float]]:
    """Anonymous, shared and whole proportional set size in MiB; the largest process of each kind, and all."""
    sizes: dict[str, list[float]] = {}
    total = [0.0, 0.0, 0.0]
    for member in members:
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()[1:]
            named = Path(f"/proc/{member}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:
            continue
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        now = [kib.get(key, 0) / 1024 for key in ("Pss_Anon", "Pss_Shmem", "Pss")]
        kind = "driver" if member == driver else kind_of(named)
        sizes[kind] = [max(pair) for pair in zip(sizes.get(kind, now), now, strict=True)]
        total = [sum(pair) for pair in zip(total, now, strict=True)]
    return sizes | {"all processes": total}


def kind_of(name: str) -> str:
    """The kind of a process, by the name that Ray gives it."""
    if "KMeans" in name:
        return "K-means actor"
    return "Ray worker" if name.startswith("ray::") and "IDLE" not in name else "Ray itself"


def end_orphans(members: list[int], patience_s: float = 20.0) -> None:
    """Wait for the remaining processes of a killed command, then kill those that still run."""
    deadline = time.monotonic() + patience_s
    alive = members
    while alive and time.monotonic() < deadline:
        time.sleep(0.5)
        alive = [member for member in alive if is_alive(member)]
    for member in alive:
        try:
            os.kill(member, 9)
        except ProcessLookupError:
            pass


def is_alive(process: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Phases:
    """The finished phases of a run, kept in a file."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._file = work / "phases.json"
        self.done: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def record(self, name: str, work: Callable[[], Any]) -> None:
        """Do a phase unless it is done, and keep what it returns."""
        if name in self.done:
            return
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        self.done[name] = work()
        self._file.write_text(json.dumps(self.done, indent=1) + "\n")

    def run(self, name: str, command: list[str], stop: Callable[[], bool] | None = None) -> None:
        """Run a command as a phase; a failure ends the benchmark.

        An interrupted phase continues at the next start, and only its rest is measured, as the page states.
        """
        started = self._work / f"{name.replace(' ', '-')}.started"

        def work() -> dict[str, Any]:
            resumed = started.exists()
            started.touch()
            result = attempt(command, self._work / "log.txt", stop)
            if stop is None and result["status"]:
                raise SystemExit(f"{name} ended with {result['status']}; see {self._work / 'log.txt'}")
            return result | {"resumed": resumed}

        self.record(name, work)


def run_phases(options: argparse.Namespace) -> dict[str, Any]:
    """Run all phases that are not finished."""
    work: Path = options.work_dir.absolute()
    work.mkdir(parents=True, exist_ok=True)
    phases = Phases(work)
    counts = {split: round(count * options.scale) for split, count in RELEASE_1_6.items()}
    corpus, store, run = work / "corpus", work / "store", work / "runs" / "msp"
    phases.record("counts", lambda: counts)
    if phases.done["counts"] != counts:
        raise SystemExit(f"{work} holds a run of another --scale; give another WORK_DIR")
    phases.record("corpus", lambda: write_corpus(options.speech_dir, corpus, counts, options.pool))

    def python(verb: str, *arguments: object) -> list[str]:
        return [sys.executable, "-m", f"raydec.{verb}", *map(str, arguments)]

    workers = ("--workers", options.workers)
    unlabeled = ("--unlabeled", corpus / "Unlabeled")
    phases.run("prepare", python("prepare", corpus, store, *unlabeled, *workers))
    bare_files = sorted((work / "pool").iterdir())[:BARE_FILES]
    phases.record("bare", lambda: bare_rate(bare_files, max(options.workers, 1), work))
    train = python("train", *train_settings(store, work, options.threads))
    phases.run("train, killed", train, stop=lambda: half_of_second_epoch(run))
    phases.run("train, resumed", train)
    model = run / "model"
    phases.run("evaluate", python("evaluate", model, store, "--out", work / "evaluation.json"))
    phases.run("report", python("report", run))
    listed = work / "test.txt"
    first = counts["train"] + counts["validation"]
    names = [f"{number:06d}.flac" for number in range(first, first + counts["test"])]
    listed.write_text("".join(f"{corpus / 'Audios' / name}\n" for name in names))
    phases.run("predict", python("predict", model, listed, "--out", work / "test.parquet", *workers))
    return phases.done | {"found": findings(run, work, len(names))}


def train_settings(store: Path, work: Path, threads: int) -> list[str]:
    """The published recipe on a small network, with two Ray workers."""
    return [
        f"data.store={store}",
        f"output_dir={work / 'runs'}",
        "name=msp",
        f"model.channels={list(CHANNELS)}".replace(" ", ""),
        "training.recipe=reference",
        "training.epochs=3",
        "ray.num_workers=2",
        f"ray.cpus_per_worker={threads}",
    ]


def half_of_second_epoch(run: Path) -> bool:
    """Whether the second epoch of a run has taken half as long as the first."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    if len(lines) != 1:
        return len(lines) > 1
    return time.time() - metrics.stat().st_mtime > json.loads(lines[0])["time/epoch_s"] / 2


def bare_rate(files: list[Path], workers: int, work: Path) -> dict[str, float]:
    """Files per second of the bare loop in as many processes."""
    return {"files": len(files), "files_per_s": len(files) / bare_processes(files, workers, work)["wall_s"]}


def findings(run: Path, work: Path, num_predicted: int) -> dict[str, Any]:
    """Seconds of every part of the epochs and sizes of files, after checks that nothing is missing."""
    import pyarrow.parquet as pq

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3], "an epoch is missing or was written twice"
    rows = pq.read_table(work / "test.parquet").num_rows
    assert rows == num_predicted, f"{rows} rows for {num_predicted} files"
    return {
        "epochs": [{name: line[name] for name in line if name.startswith("time/")} for line in lines],
        "chunks_per_s": lines[-1]["throughput/chunks_per_s"],
        "store_gib": sum(file.stat().st_size for file in (work / "store").iterdir()) / 2**30,
        "checkpoint_mib": checkpoint_mib(run),
        "report_mib": (run / "report.html").stat().st_size / 2**20,
        "predicted": rows,
    }


def checkpoint_mib(run: Path) -> float:
    """Size of the newest checkpoint."""
    newest = sorted((run / "checkpoints").glob("*epoch-*"))[-1]
    return sum(file.stat().st_size for file in newest.rglob("*") if file.is_file()) / 2**20


def page(numbers: dict[str, Any], arguments: list[str], scale: float) -> str:
    """The page in Markdown."""
    measured = {
        name: value for name, value in numbers.items() if isinstance(value, dict) and "wall_s" in value
    }
    num_files, found = sum(numbers["counts"].values()), numbers["found"]
    phases = [
        [name + (" (the rest, after an interruption)" if value["resumed"] else ""), f"{value['wall_s']:,.0f}"]
        for name, value in measured.items()
    ]
    memory = [
        [name, kind, *(f"{value:,}" for value in peak)]
        for name, value in measured.items()
        for kind, peak in sorted(value["peak_mib"].items())
    ]
    names = sorted({name for epoch in found["epochs"] for name in epoch})
    epochs = [
        [name.removeprefix("time/"), *(f"{epoch.get(name) or 0:.2f}" for epoch in found["epochs"])]
        for name in names
    ]
    rate = num_files / measured["prepare"]["wall_s"]
    bare = numbers["bare"]["files_per_s"]
    return "\n".join(
        [
            f"# A run of {num_files:,} utterances, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python -m benchmarks.msp_sized SPEECH_DIR WORK_DIR {shlex.join(arguments)}`",
            "",
            f"{numbers['machine']}. Scale {scale:g} of MSP-Podcast v1.6 with 40,000 unlabeled utterances: "
            + ", ".join(f"{count:,} {split}" for split, count in numbers["counts"].items())
            + f". Recipe reference, channels {list(CHANNELS)}, two Ray workers.",
            "",
            table(["phase", "s"], phases),
            "",
            f"`prepare` with its start: {rate:.0f} files/s; a bare loop of soundfile, soxr and torchaudio "
            f"over {numbers['bare']['files']:,.0f} of the files in as many processes: {bare:.0f} files/s. "
            f"Store {found['store_gib']:.2f} GiB, newest checkpoint {found['checkpoint_mib']:.1f} MiB, "
            f"report {found['report_mib']:.1f} MiB, {found['predicted']:,} predicted files.",
            "",
            "Seconds within the epochs; the second is the one that was resumed:",
            "",
            table(["part", "epoch 1", "epoch 2", "epoch 3"], epochs),
            "",
            "Peak memory, MiB, sampled once a second as proportional set size; the largest process of each "
            "kind. Mapped frames count in the last column only:",
            "",
            table(["phase", "process", "anonymous", "shared", "all"], memory),
        ]
    )


def main() -> None:
    """Run what is left, then write the page."""
    parser = argument_parser(__doc__)
    parser.add_argument("speech_dir", type=Path)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the utterances")
    parser.add_argument("--pool", type=int, default=3000, help="different recordings")
    parser.add_argument("--workers", type=int, default=2, help="processes of prepare and predict")
    parser.add_argument("--threads", type=int, default=1, help="threads of each training worker")
    options = parser.parse_args()
    numbers = run_phases(options) | {"machine": machine()}
    text = page(numbers, sys.argv[3:], options.scale)
    print(text)
    print(write_results("msp-sized", text, numbers))


if __name__ == "__main__":
    main()
