"""Measures the data plane of an epoch without its network: ``python -m benchmarks.data_plane WORK_DIR``.

For each number of chunks, each of ``--workers`` processes of one thread has its share of artificial
embeddings (of ``--dim`` values, few enough for a hundred million rows to fit in memory). Twice, it repeats a
training worker's part in a stage: assign its rows to the centroids of a sample (``clustering.max_fit_rows``),
compare with the last assignment, draw its share of balanced batches, read through the batches, write and read
a checkpoint's labels. Collectives are real. The page shows the seconds of each phase in the second round for
the slowest worker, and the peak memory of the largest worker without its embeddings, with a plot.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import RESULTS, argument_parser, machine, table, write_results

NUM_CLUSTERS = 100
NUM_CHUNKS = 11
BATCH = 64 * NUM_CHUNKS
SAMPLE_ROWS = 100_000
PHASES = ("fit_s", "assign_s", "compare_s", "draw_s", "batches_s", "write_s", "read_s")


def work(rank: int, size: int, options: argparse.Namespace, folder: str) -> None:
    """One worker: runs both rounds and writes its measurements as JSON into the folder."""
    import scipy.optimize  # noqa: F401  otherwise imported on first use, within a phase
    import torch
    import torch.distributed as dist

    from raydec.learning.worker import DistributedWorker, LocalWorker, Worker

    torch.set_num_threads(1)
    worker: Worker = LocalWorker()
    if options.workers > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=options.workers
        )
        worker = DistributedWorker(torch.device("cpu"))
    stop = threading.Event()
    peaks: list[float] = []
    embeddings = made_embeddings(size, rank, options)
    before = anonymous_mib()
    watcher = threading.Thread(target=watch, args=(peaks, stop))
    watcher.start()
    rounds = list(two_rounds(worker, embeddings, size, folder))
    stop.set()
    watcher.join()
    found = rounds[-1] | {"peak_mib": max(peaks) - before, "embeddings_mib": embeddings.nbytes / 2**20}
    Path(folder, f"found-{rank}.json").write_text(json.dumps(found))


def made_embeddings(size: int, rank: int, options: argparse.Namespace) -> np.ndarray:
    """A worker's share of embeddings around a thousand centres of different frequency."""
    from raydec.learning.worker import share_of

    share = share_of(size // NUM_CHUNKS, rank, options.workers)
    rng = np.random.default_rng(rank)
    centers = np.random.default_rng(99).normal(size=(1000, options.dim)).astype(np.float32)
    rows = np.empty(((share.stop - share.start) * NUM_CHUNKS, options.dim), np.float32)
    for start in range(0, len(rows), 2**20):
        block = rows[start : start + 2**20]
        block[:] = centers[(1000 * rng.random(len(block)) ** 2).astype(int)]
        block += 0.1 * rng.standard_normal(block.shape, np.float32)
    return rows


def two_rounds(worker: Any, embeddings: np.ndarray, size: int, folder: str) -> Iterator[dict[str, float]]:
    """Seconds by phase of two epochs; only the second has a last assignment to compare with."""
    import torch

    from raydec.config import ClusteringConfig
    from raydec.learning.alignment import match_clusters, rename_clusters, shared_chunks
    from raydec.learning.checkpoint import RunState, load_state, save_labels, save_state
    from raydec.learning.clusterer import ClusteringTask, LocalClusterer
    from raydec.learning.epoch_draw import EpochDraw, lookup_chunks
    from raydec.learning.label_shards import LabelShards
    from raydec.learning.randomness import generator_for
    from raydec.learning.sampled_clustering import past_one_process
    from raydec.learning.sampling import BalancedDraw, BatchPlan
    from raydec.learning.worker import share_of

    config = ClusteringConfig(num_clusters=NUM_CLUSTERS, max_fit_rows=min(SAMPLE_ROWS, max(1, size // 10)))
    fitting = LocalClusterer(worker, config.model_copy(update={"max_fit_rows": None}))
    clusterer = past_one_process(fitting, worker, config)
    own = share_of(size // NUM_CHUNKS, worker.rank, worker.world_size)
    rows = slice(own.start * NUM_CHUNKS, own.stop * NUM_CHUNKS)
    num_rows = size // NUM_CHUNKS * NUM_CHUNKS
    previous: np.ndarray | None = None
    for epoch in range(2):
        seconds: dict[str, float] = {}

        @contextmanager
        def timed(phase: str, seconds: dict[str, float] = seconds) -> Iterator[None]:
            worker.all_sum(torch.zeros(1))
            begun = time.perf_counter()
            yield
            seconds[phase] = time.perf_counter() - begun

        trim()
        with timed("assign_s"):
            assignment = clusterer.assign(ClusteringTask(epoch, "made", NUM_CLUSTERS, epoch), embeddings)
        seconds["fit_s"] = assignment.timings["fit_s"] + assignment.timings["gather_s"]
        seconds["assign_s"] -= seconds["fit_s"]
        with timed("compare_s"):
            if previous is not None:
                local = shared_chunks(assignment.labels, previous, NUM_CLUSTERS)
                shared = worker.all_sum(torch.from_numpy(local)).numpy()
                assignment = rename_clusters(assignment, match_clusters(shared))
        with timed("draw_s"):
            shards = LabelShards(worker, assignment.labels, NUM_CLUSTERS)
            draw = BalancedDraw(shards.sizes, num_rows, generator_for(1, "draw", epoch))
            plan = BatchPlan(num_rows, BATCH * worker.world_size)
            drawn = EpochDraw(plan, worker, lookup_chunks(draw, shards))
        with timed("batches_s"):
            total = sum(int(batch.rows.sum()) for batch in drawn)
        assert total > 0 or num_rows < BATCH
        del drawn, shards
        with timed("write_s"):
            save_labels({"made": assignment.labels}, {"made": rows.start}, Path(folder))
            if worker.rank == 0:
                save_state(RunState(epoch=epoch, sizes={"made": assignment.sizes}), Path(folder))
        with timed("read_s"):
            state = load_state(Path(folder), {"made": rows})
        assert np.array_equal(state.labels["made"], assignment.labels)
        previous = assignment.labels
        yield seconds


def trim() -> None:
    """Return freed memory to the system, so that a peak belongs to this round."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass


def anonymous_mib() -> float:
    """This process's anonymous memory."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def watch(peaks: list[float], stop: threading.Event) -> None:
    """Sample anonymous memory."""
    while True:
        peaks.append(anonymous_mib())
        if stop.wait(0.02):
            return


def measure(size: int, options: argparse.Namespace) -> dict[str, float]:
    """One size: the slowest worker's seconds and the largest one's memory."""
    import torch.multiprocessing as mp

    options.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work_dir) as folder:
        mp.spawn(work, (size, options, folder), nprocs=options.workers)
        found = [json.loads(path.read_text()) for path in Path(folder).glob("found-*.json")]
    assert len(found) == options.workers
    return {"chunks": size} | {name: max(each[name] for each in found) for name in found[0]}


def plot(samples: list[dict[str, float]], path: Path) -> Path:
    """Seconds by phase and memory against the number of chunks, both axes logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, (seconds, memory) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    chunks = np.array([sample["chunks"] for sample in samples])
    for phase in PHASES:
        seconds.plot(
            chunks, [max(sample[phase], 1e-4) for sample in samples], "o-", label=phase.removesuffix("_s")
        )
    seconds.plot(chunks, 1e-7 * chunks, "k:", linewidth=0.8, label="0.1 µs a chunk")
    seconds.set(xscale="log", yscale="log", xlabel="chunks", ylabel="s", title="Second round, slowest worker")
    seconds.legend(fontsize="small")
    memory.plot(
        chunks, [max(sample["peak_mib"], 1) for sample in samples], "o-", label="beside the embeddings"
    )
    memory.plot(chunks, 40 * chunks / 2**20, "k:", linewidth=0.8, label="40 B a chunk")
    memory.set(xscale="log", yscale="log", xlabel="chunks", ylabel="MiB", title="Memory, largest worker")
    memory.legend(fontsize="small")
    figure.savefig(path)
    return path


def page(samples: list[dict[str, float]], options: argparse.Namespace, picture: Path) -> str:
    """The page in Markdown."""
    rows = [
        [
            f"{int(sample['chunks']):,}",
            *(f"{sample[phase]:.3g}" for phase in PHASES),
            f"{sample['peak_mib']:,.0f}",
            # With smaller sets, most of the memory is that of one block.
            f"{sample['peak_mib'] * 2**20 * options.workers / sample['chunks']:,.0f}"
            if sample["chunks"] >= 1e6
            else "",
        ]
        for sample in samples
    ]
    header = [
        "chunks",
        *(f"{phase.removesuffix('_s')}, s" for phase in PHASES),
        "peak, MiB",
        "B per own chunk",
    ]
    return "\n".join(
        [
            f"# The data plane without the network, {options.workers} worker(s), {time.strftime('%Y-%m-%d')}",
            "",
            f"`{shlex.join(['python', '-m', 'benchmarks.data_plane', 'WORK_DIR', *sys.argv[2:]])}`",
            "",
            f"{machine()}. K = {NUM_CLUSTERS}, embeddings of {options.dim} values, a sample of at most "
            f"{SAMPLE_ROWS:,} rows, batches of {BATCH} chunks per worker, workers of one thread. Seconds of "
            "the second round, slowest worker; memory of the largest worker beside its embeddings and what "
            "a process needs before it starts.",
            "",
            table(header, rows),
            "",
            f"![seconds and memory against chunks]({picture.name})",
        ]
    )


def main() -> None:
    """Measure all sizes, plot, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--sizes", type=float, nargs="*", default=[1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dim", type=int, default=8, help="values per embedding")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    samples = []
    for size in map(int, options.sizes):
        samples.append(measure(size, options))
        print(json.dumps(samples[-1]), flush=True)
    name = f"data-plane-{options.workers}"
    picture = plot(samples, RESULTS / f"{time.strftime('%Y-%m-%d')}-{name}.svg")
    text = page(samples, options, picture)
    print(text)
    print(write_results(name, text, {"samples": samples}))


if __name__ == "__main__":
    main()
