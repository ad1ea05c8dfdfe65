"""K-means over embeddings, with the same interface for all libraries and places where it can run.

Every backend starts from the same centroids (k-means++ on a sample, or those of the last assignment) and uses
the same stopping rule. Labels, sizes and inertia are computed from its centroids by the same code.

Reproducibility: on one machine, the same embeddings, seed and backend give bit-identical results with
``torch`` and ``sklearn``, whatever the number of threads. On another processor a matrix product may round
differently, which can change the label of a row that is equally near to two centroids up to float32 rounding.
``cuml`` adds floats in no fixed order, so its results agree only up to rounding.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64

from raydec.errors import DivergedError, UserError
from raydec.learning import kmeans
from raydec.learning.randomness import generator_for
from raydec.learning.row_blocks import RowBlocks
from raydec.learning.shuffle import WHOLE_SIZE, Shuffle

Backend = Literal["auto", "cuml", "torch", "sklearn"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KMeansResult:
    """The result of K-means.

    Attributes:
        centroids: one row per cluster.
        labels: nearest centroid of each row.
        inertia: sum of squared distances of all rows to their centroids.
        num_iterations: number of updates of the centroids.
        sizes: rows per cluster; 0 for empty clusters.
        backend: ``cuml``, ``torch`` or ``sklearn``.
    """

    centroids: Float32[np.ndarray, "cluster dim"]
    labels: Int32[np.ndarray, "row"]
    inertia: float
    num_iterations: int
    sizes: Int64[np.ndarray, "cluster"]
    backend: str


def fit_kmeans(
    embeddings: Float32[np.ndarray, "row dim"],
    num_clusters: int,
    *,
    seed: int,
    init: np.ndarray | None = None,
    max_iterations: int = 20,
    tolerance: float = 1e-4,
    backend: Backend = "auto",
    max_fit_rows: int | None = None,
    device: torch.device | str | None = None,
) -> KMeansResult:
    """Cluster rows.

    Args:
        embeddings: may be read-only; never changed.
        num_clusters: K. With fewer distinct rows, some clusters stay empty.
        seed: of the seeding, the sample, and the refilling of empty clusters.
        init: initial centroids, [cluster, dim]; default: k-means++ on a sample.
        max_iterations: maximal number of updates of the centroids.
        tolerance: stop when the inertia falls by less than this share; 0: never.
        backend: ``auto`` is cuML on a GPU if it works and the rows fit, else torch.
        max_fit_rows: fit on a sample of this many rows, then assign all of them.
        device: the device of torch; default: a GPU if this process sees one.

    Raises:
        UserError: there are no rows, or the backend cannot run here.
        DivergedError: embeddings are not finite.
        ValueError: ``init`` has the wrong shape or is not finite.
    """
    _check_shapes(embeddings, num_clusters, init)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = generator_for(seed, "kmeans")
    everything = RowBlocks.of(embeddings, torch.device(device))
    rows = everything
    if max_fit_rows is not None and max_fit_rows < len(embeddings):
        rows = RowBlocks(everything.rows(sample_rows(len(embeddings), max_fit_rows, seed)), everything.device)
    _check_finite(rows)
    chosen = _resolve(backend, rows)
    if len(rows) <= num_clusters:
        centroids, num_iterations = rows.rows(np.arange(num_clusters) % len(rows)), 0
    else:
        start = _start(rows, num_clusters, init, rng)
        centroids, num_iterations = _fit(chosen, rows, start, max_iterations, tolerance, rng)
    labels, distances = _nearest(everything, centroids)
    return KMeansResult(
        centroids=centroids.cpu().numpy(),
        labels=labels,
        inertia=float(distances.sum(dtype=np.float64)),
        num_iterations=num_iterations,
        sizes=np.bincount(labels, minlength=num_clusters),
        backend=chosen,
    )


def nearest_centroid(
    embeddings: Float32[np.ndarray, "row dim"],
    centroids: Float32[np.ndarray, "cluster dim"],
    *,
    device: torch.device | str = "cpu",
) -> tuple[Int32[np.ndarray, "row"], Float32[np.ndarray, "row"]]:
    """The nearest centroid of each row, and the squared distance to it.

    Raises:
        DivergedError: embeddings are not finite.
    """
    if not len(embeddings):
        return np.empty(0, np.int32), np.empty(0, np.float32)
    return _nearest(RowBlocks.of(embeddings, torch.device(device)), torch.from_numpy(centroids.copy()))


def _nearest(
    rows: RowBlocks, centroids: torch.Tensor
) -> tuple[Int32[np.ndarray, "row"], Float32[np.ndarray, "row"]]:
    labels = np.empty(len(rows), dtype=np.int32)
    distances = np.empty(len(rows), dtype=np.float32)
    start = 0
    for block_labels, block_distances in kmeans.nearest(rows, centroids):
        stop = start + len(block_labels)
        labels[start:stop] = block_labels.cpu().numpy()
        distances[start:stop] = block_distances.cpu().numpy()
        start = stop
    if not np.isfinite(distances).all():
        raise _not_finite(int((~np.isfinite(distances)).sum()), len(rows))
    return labels, distances


def _fit(
    backend: str,
    rows: RowBlocks,
    start: torch.Tensor,
    max_iterations: int,
    tolerance: float,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, int]:
    if backend == "sklearn":
        _, distances = _nearest(rows, start)
        centroids, num_iterations = kmeans.fit_sklearn(
            rows.data.cpu().numpy(),
            start.cpu().numpy(),
            max_iterations=max_iterations,
            tolerance=tolerance,
            start_inertia=float(distances.sum(dtype=np.float64)),
        )
        return torch.from_numpy(centroids), num_iterations
    fit = kmeans.fit_cuml if backend == "cuml" else kmeans.lloyd
    return fit(rows, start, max_iterations=max_iterations, tolerance=tolerance, rng=rng)


def _start(
    rows: RowBlocks, num_clusters: int, init: np.ndarray | None, rng: np.random.Generator
) -> torch.Tensor:
    if init is not None:
        return torch.from_numpy(init.astype(np.float32)).to(rows.device)
    num_rows = max(kmeans.SEED_ROWS, kmeans.SEED_ROWS_PER_CLUSTER * num_clusters)
    picks = _sample(len(rows), num_rows, rng)
    sample = rows if len(picks) == len(rows) else RowBlocks(rows.rows(picks), rows.device)
    return rows.rows(picks[kmeans.choose_seeds(sample, num_clusters, rng)])


def sample_rows(num_rows: int, sample_size: int, seed: int) -> Int64[np.ndarray, "pick"]:
    """The sample of rows for ``max_fit_rows``, in ascending order, independent of where the rows are held.

    Time and memory depend on ``sample_size`` alone once there are more than a million rows.
    """
    rng = generator_for(seed, "kmeans_sample")
    if num_rows <= WHOLE_SIZE:
        return _sample(num_rows, sample_size, rng)
    return np.sort(Shuffle(num_rows, rng)(np.arange(min(sample_size, num_rows))))


def _sample(num_rows: int, sample_size: int, rng: np.random.Generator) -> Int64[np.ndarray, "pick"]:
    """Distinct rows in ascending order; all rows if there are not more than ``sample_size``."""
    if sample_size >= num_rows:
        return np.arange(num_rows)
    return np.sort(rng.choice(num_rows, sample_size, replace=False, shuffle=False))


def _resolve(backend: Backend, rows: RowBlocks) -> str:
    if backend not in ("auto", "cuml"):
        return backend
    if rows.device.type != "cuda":
        problem: str | None = "the embeddings are clustered on a CPU"
    elif not rows.resident:
        problem = f"{rows.data.nbytes / 2**30:.1f} GiB of embeddings do not fit on the GPU"
    else:
        problem = kmeans.cuml_problem()
    if problem is None:
        return "cuml"
    if backend == "cuml":
        raise UserError(
            f"clustering.backend=cuml cannot be used: {problem}; set clustering.backend=auto or torch"
        )
    logger.debug("K-means runs in torch: %s", problem)
    return "torch"


def _check_shapes(embeddings: np.ndarray, num_clusters: int, init: np.ndarray | None) -> None:
    if not len(embeddings):
        raise UserError("cannot cluster an empty set of chunks")
    if init is not None and init.shape != (num_clusters, embeddings.shape[1]):
        raise ValueError(f"init is {init.shape}, not {(num_clusters, embeddings.shape[1])}")
    if init is not None and not np.isfinite(init).all():
        raise ValueError("init contains non-finite values")


def _check_finite(rows: RowBlocks) -> None:
    if torch.isfinite(rows.moments[1]):
        return
    bad = sum(int((~block.isfinite().all(1)).sum()) for block, _ in rows.blocks(1))
    raise _not_finite(bad, len(rows))


def _not_finite(num_bad: int, num_rows: int) -> DivergedError:
    return DivergedError(f"{num_bad} of {num_rows} embeddings are not finite")
