"""Checks that memory does not grow with the corpus: ``python -m benchmarks.memory WORK_DIR [--gib 5]``.

Two measurements, in separate processes whose anonymous memory is limited by the kernel (RLIMIT_DATA), so that
holding the corpus in memory would be an error:

* ``prepare`` over N and 8 N audio files,
* training (embedding, K-means, balanced draws, a few hundred steps) over a store made by repeating a small
  one to at least ``--gib`` GiB of frames, and over one of an eighth of that size.

The network is small, because large activations would hide the memory for the corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

LIMIT_GIB = 4.0
TRAIN_SETTINGS = [
    "training.epochs=1",
    "training.batch_utterances=32",
    "training.recipe=modern",
    "features.scale=log",
    "data.attributes=[arousal]",
    "model.channels=[2,2,4,4,4,4,4]",
    "model.embedding_dim=16",
    "ray.num_workers=0",
    "ray.cpus_per_worker=1",
]


def measured(arguments: list[str]) -> dict[str, float]:
    """Run this module with ``--inside`` in a separate process and read its measurements."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--inside", *arguments], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} failed under {LIMIT_GIB} GiB:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def inside(arguments: list[str]) -> None:
    """Limit this process's memory, run one raydec verb in it, and print its peak anonymous memory."""
    limit = int(LIMIT_GIB * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    verb, *rest = arguments
    if verb == "train":
        from raydec.train import main
    else:
        from raydec.prepare import main
    seen: list[float] = []
    finished = threading.Event()
    watcher = threading.Thread(target=watch, args=(seen, finished))
    watcher.start()
    try:
        main(rest)
    finally:
        finished.set()
        watcher.join()
    # Only anonymous pages are counted, because mapped frames belong to the page cache.
    print(json.dumps({"peak_anonymous_mib": max(seen)}))


def watch(seen: list[float], finished: threading.Event) -> None:
    """Sample this process's anonymous memory, in MiB."""
    while not finished.wait(0.2):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        seen.append(int(status["RssAnon"].split()[0]) / 1024)


def write_corpus(folder: Path, num_files: int) -> Path:
    """The synthetic demo corpus's files, linked under new names until there are enough."""
    from raydec.corpus.demo import write_demo_corpus

    source = write_demo_corpus(
        folder.parent / "demo", num_train=40, num_validation=8, num_test=8, num_unlabeled=0
    )
    audio = folder / "Audios"
    shutil.rmtree(folder, ignore_errors=True)
    audio.mkdir(parents=True)
    (folder / "Labels").mkdir()
    header, *rows = (source / "Labels" / "labels_consensus.csv").read_text().splitlines()
    lines = [header]
    for number in range(num_files):
        # Strides over the rows, so that a few files cover every split.
        name, rest = rows[7 * number % len(rows)].split(",", 1)
        linked = f"{number:06d}_{name}"
        os.link(source / "Audios" / name, audio / linked)
        lines.append(f"{linked},{rest}")
    (folder / "Labels" / "labels_consensus.csv").write_text("\n".join(lines) + "\n")
    return folder


def repeat_store(source: Path, target: Path, gib: float) -> Path:
    """A store whose frames files are copies of ``source``'s; eight neighbours become one long utterance."""
    import pyarrow as pa

    from raydec.files.atomic import file_sha256, write_arrow

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    content = json.loads((source / "store.json").read_text())
    with pa.ipc.open_file(source / "utterances.arrow") as reader:
        rows = joined_neighbours(reader.read_all().to_pylist())
        schema = reader.schema
    size = sum((source / shard["file"]).stat().st_size for shard in content["shards"])
    num_copies = max(1, -(-int(gib * 2**30) // size))
    shards, repeated = [], []
    for copy in range(num_copies):
        offset = len(shards)
        for number, shard in enumerate(content["shards"]):
            name = f"frames-{offset + number:05d}.arrow"
            shutil.copyfile(source / shard["file"], target / name)
            shards.append(shard | {"file": name})
        repeated += [
            row | {"utterance_id": f"{copy}/{row['utterance_id']}", "shard": row["shard"] + offset}
            for row in rows
        ]
    (batch,) = pa.Table.from_pylist(repeated, schema).combine_chunks().to_batches()
    write_arrow(target / "utterances.arrow", batch)
    content |= {"shards": shards}
    content["utterances"]["sha256"] = file_sha256(target / "utterances.arrow")
    (target / "store.json").write_text(json.dumps(content))
    return target


def joined_neighbours(rows: list[dict]) -> list[dict]:
    """Runs of at most eight rows that lie side by side in one shard and split, as one row each."""
    joined: list[dict] = []
    lengths: list[int] = []
    for row in rows:
        last = joined[-1] if joined else None
        beside = last is not None and (last["shard"], last["split"]) == (row["shard"], row["split"])
        if last is not None and beside and lengths[-1] < 8:
            last["num_frames"] += row["num_frames"]
            last["duration_s"] += row["duration_s"]
            lengths[-1] += 1
        else:
            joined.append(dict(row))
            lengths.append(1)
    return joined


def main() -> None:
    """Measure, print, and write ``memory.json`` into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--gib", type=float, default=5.0)
    parser.add_argument("--files", type=int, default=400)
    options = parser.parse_args()
    work: Path = options.work_dir.absolute()
    results: dict[str, dict[str, float]] = {}
    for num_files in (options.files, 8 * options.files):
        corpus = write_corpus(work / f"corpus-{num_files}", num_files)
        store = work / f"store-{num_files}"
        results[f"prepare {num_files} files"] = measured(
            ["prepare", str(corpus), str(store), "--workers", "0", "--restart"]
        )
    for gib in (options.gib / 8, options.gib):
        store = repeat_store(work / f"store-{options.files}", work / "repeated", gib)
        frames = sum(file.stat().st_size for file in store.glob("frames-*.arrow")) / 2**30
        runs = work / "runs"
        shutil.rmtree(runs, ignore_errors=True)
        peaks = measured(
            ["train", f"data.store={store}", f"output_dir={runs}", "name=memory", *TRAIN_SETTINGS]
        )
        steps = sum(1 for _ in (runs / "memory" / "steps.jsonl").open())
        results[f"train on {frames:.2f} GiB of frames, {steps} steps"] = peaks
    print(json.dumps(results, indent=2))
    (work / "memory.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2:])
    else:
        main()
