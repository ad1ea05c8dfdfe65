"""Measures the cost of K-means: ``python -m benchmarks.kmeans WORK_DIR [--part grow|oracle|large]``.

* ``grow``: a fit from scratch and a warm start against rows and clusters, on artificial 256-d embeddings,
* ``oracle``: inertia after 20 iterations compared with scikit-learn's Lloyd from the same start,
* ``large``: 10 million rows in a memory-mapped file of 10 GB, fitted on a sample, then all assigned.

The share of an epoch is the time of K-means over that of embedding and training the same number of chunks at
the rates --embed-rate and --train-rate (chunks/s, from benchmarks.epoch). It is marked as an extrapolation.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import argument_parser, machine, machine_lock, spread, table, write_results
from raydec.learning.clustering import fit_kmeans, nearest_centroid
from raydec.learning.host import keep_freed_memory

DIM = 256
CENTRES = 60
PARTS = ("grow", "oracle", "large")


def made_rows(num_rows: int, seed: int = 0) -> np.ndarray:
    """Overlapping blobs along a line, float32: with structure, but not trivial."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(CENTRES, DIM)).astype(np.float32)
    rows = rng.standard_normal((num_rows, DIM), dtype=np.float32)
    rows += centres[rng.integers(CENTRES, size=num_rows)]
    return rows


def timed(call: Any) -> tuple[float, Any]:
    """Time of a call in seconds, and its result."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def grow(device: str, sizes: list[int], clusters: list[int]) -> list[dict[str, float]]:
    """Cold and warm fits for every pair of rows and clusters."""
    rows = made_rows(max(sizes))
    drift = 0.2 * made_rows(1, seed=9)
    samples = []
    for num_rows in sizes:
        part = rows[:num_rows]
        for num_clusters in clusters:
            cold_s, cold = timed(lambda k=num_clusters, x=part: fit_kmeans(x, k, seed=0, device=device))
            moved = cold.centroids + drift.astype(np.float32)
            warm_s, warm = timed(
                lambda k=num_clusters, x=part, c=moved: fit_kmeans(x, k, seed=0, init=c, device=device)
            )
            samples.append(
                {
                    "rows": num_rows,
                    "clusters": num_clusters,
                    "cold_s": cold_s,
                    "cold_iterations": cold.num_iterations,
                    "warm_s": warm_s,
                    "warm_iterations": warm.num_iterations,
                    "cpu_s": time.process_time(),
                }
            )
            print(samples[-1], flush=True)
    return samples


def oracle(device: str, num_rows: int = 100_000) -> list[dict[str, float]]:
    """The same start and 20 iterations here and in scikit-learn."""
    from sklearn.cluster import KMeans

    samples = []
    for num_clusters in (10, 30, 100):
        rows = made_rows(num_rows, seed=num_clusters)
        start = rows[np.random.default_rng(2).choice(num_rows, num_clusters, replace=False)]
        ours_s, ours = timed(
            lambda k=num_clusters, x=rows, c=start: fit_kmeans(
                x, k, seed=0, init=c, tolerance=0, device=device
            )
        )
        theirs_s, theirs = timed(
            lambda k=num_clusters, x=rows, c=start: KMeans(k, init=c, n_init=1, max_iter=20, tol=0).fit(x)
        )
        samples.append(
            {
                "rows": num_rows,
                "clusters": num_clusters,
                "inertia_ratio": ours.inertia / theirs.inertia_,
                "raydec_s": ours_s,
                "sklearn_s": theirs_s,
            }
        )
        print(samples[-1], flush=True)
    return samples


def large(work: Path, num_rows: int, num_clusters: int = 100) -> dict[str, float]:
    """Write a file, map it, fit on a sample, assign all rows block by block, and remove the file."""
    path = work / "embeddings.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (num_rows, DIM))
    try:
        for first in range(0, num_rows, 200_000):
            rows[first : first + 200_000] = made_rows(min(200_000, num_rows - first), seed=first + 5)
        rows.flush()
        del rows
        mapped = np.load(path, mmap_mode="r")
        before = anonymous_mib()
        sampled_s, result = timed(lambda: fit_kmeans(mapped, num_clusters, seed=0, max_fit_rows=500_000))
        half = num_rows // 2
        own_s, (labels, _) = timed(lambda: nearest_centroid(mapped[half:], result.centroids))
        sample = mapped[np.sort(np.random.default_rng(3).choice(num_rows, 200_000, replace=False))]
        full = fit_kmeans(sample, num_clusters, seed=0)
        least = nearest_centroid(sample, full.centroids)[1].mean()
        ours = nearest_centroid(sample, result.centroids)[1].mean()
        return {
            "rows": num_rows,
            "clusters": num_clusters,
            "sampled_fit_and_assign_s": sampled_s,
            "assign_half_s": own_s,
            "labels_agree": float((labels == result.labels[half:]).mean()),
            "inertia_over_fit_on_those_rows": float(ours / least),
            "anonymous_mib_before": before,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "anonymous_mib_after": anonymous_mib(),
        }
    finally:
        path.unlink(missing_ok=True)


def anonymous_mib() -> float:
    """This process's anonymous memory now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def page(numbers: dict[str, Any]) -> str:
    """The Markdown of a measurement."""
    lines = [f"# K-means, {time.strftime('%Y-%m-%d')}", "", numbers["machine"], ""]
    if "grow" in numbers:
        rates = numbers["rates"]
        lines += [
            "A fit with k-means++ on a sample, at most 20 iterations; a warm start from centroids moved by a "
            "fifth of the spread. The share of an epoch is extrapolated: embedding at "
            f"{rates['embed']:.0f} and training at {rates['train']:.0f} chunks/s.",
            "",
        ]
        rows = []
        for sample in numbers["grow"]:
            epoch = sample["rows"] * (1 / rates["embed"] + 1 / rates["train"])
            rows.append(
                [
                    f"{sample['rows']:,.0f}",
                    f"{sample['clusters']:.0f}",
                    f"{sample['cold_s']:.2f} ({sample['cold_iterations']:.0f})",
                    f"{sample['warm_s']:.2f} ({sample['warm_iterations']:.0f})",
                    f"{sample['cold_s'] / (epoch + sample['cold_s']):.2%}",
                ]
            )
        header = ["rows", "K", "cold, s (iterations)", "warm, s (iterations)", "cold share of an epoch"]
        lines += [table(header, rows), ""]
    if "oracle" in numbers:
        ratio = spread([sample["inertia_ratio"] for sample in numbers["oracle"]])
        header = ["rows", "K", "inertia / scikit-learn's", "raydec, s", "scikit-learn, s"]
        rows = [
            [
                f"{s['rows']:,}",
                str(s["clusters"]),
                f"{s['inertia_ratio']:.6f}",
                f"{s['raydec_s']:.2f}",
                f"{s['sklearn_s']:.2f}",
            ]
            for s in numbers["oracle"]
        ]
        lines += [f"Same start, 20 iterations; worst ratio {ratio['max']:.6f}.", "", table(header, rows), ""]
    if "large" in numbers:
        rows = [[name, f"{value:,.4g}"] for name, value in numbers["large"].items()]
        lines += ["A memory-mapped file, fitted on a sample of 500,000 rows:", "", table(["", ""], rows), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--part", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--sizes", type=int, nargs="*", default=[20_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--clusters", type=int, nargs="*", default=[10, 30, 100])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--embed-rate", type=float, default=450.0)
    parser.add_argument("--train-rate", type=float, default=150.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lock", help="file to lock around each part, on a shared machine")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.set_num_threads(torch.get_num_threads())
    numbers: dict[str, Any] = {
        "machine": machine(),
        "rates": {"embed": options.embed_rate, "train": options.train_rate},
    }
    parts = {
        "grow": lambda: grow(options.device, options.sizes, options.clusters),
        "oracle": lambda: oracle(options.device),
        "large": lambda: large(options.work_dir, options.rows),
    }
    for part in options.part:
        with machine_lock(options.lock):
            numbers[part] = parts[part]()
    text = page(numbers)
    print(text)
    print(json.dumps(numbers.get("large", {})))
    print(write_results("kmeans-" + "-".join(options.part), text, numbers))


if __name__ == "__main__":
    main()
