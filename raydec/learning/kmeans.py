"""K-means in blocks of rows: seeding, Lloyd's iterations, and the libraries that can replace them.

:mod:`raydec.learning.clustering` is the contract on top. Besides its input this module keeps one block, the
centroids, and the seeding sample in memory.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

# Values per block: a CPU's cache holds one; on a GPU each fills it and stays small beside the data.
CPU_BLOCK_VALUES = 2**19
GPU_BLOCK_VALUES = 2**25
# k-means++ on a sample this large costs +0.1% inertia against all rows, at a ninth of the time.
SEED_ROWS = 50_000
SEED_ROWS_PER_CLUSTER = 5_000
# How far the two halves of a split cluster start from its centroid, as a share of a member's distance.
SPLIT_STEP = 0.25


@dataclass(frozen=True)
class RowBlocks:
    """Embeddings that are read one block of rows at a time, on the device that computes.

    Attributes:
        data: [row, dim] float32, on the device when it fits there, else on the host.
        device: where blocks are handed out.
    """

    data: Float32[Tensor, "row dim"]
    device: torch.device

    @classmethod
    def of(cls, embeddings: Float32[np.ndarray, "row dim"], device: torch.device) -> RowBlocks:
        """Wrap an array without copying it, or move it to a GPU that has room for it."""
        with warnings.catch_warnings():
            # Arrays out of Ray's object store are read-only, which torch warns of; nothing here writes.
            warnings.simplefilter("ignore", UserWarning)
            data = torch.from_numpy(np.ascontiguousarray(embeddings))
        if device.type == "cuda":
            torch.cuda.empty_cache()
            if 1.25 * embeddings.nbytes < torch.cuda.mem_get_info(device)[0]:
                data = data.to(device)
        return cls(data, device)

    @property
    def resident(self) -> bool:
        """Whether all rows are on the device."""
        return self.data.device.type == self.device.type

    def __len__(self) -> int:
        return len(self.data)

    def blocks(self, num_clusters: int) -> Iterator[Float32[Tensor, "block dim"]]:
        """All rows in order; a block's scores for ``num_clusters`` clusters are bounded in size too."""
        values = CPU_BLOCK_VALUES if self.device.type == "cpu" else GPU_BLOCK_VALUES
        block_rows = max(1, values // max(self.data.shape[1], num_clusters))
        for start in range(0, len(self.data), block_rows):
            yield self.data[start : start + block_rows].to(self.device)

    @functools.cached_property
    def origin(self) -> Float64[Tensor, "dim"]:
        """A point amid the rows (the mean of the first ones), to measure from."""
        return self.data[:4096].to(self.device).double().mean(0)

    def rows(self, indices: Int64[np.ndarray, "pick"]) -> Float32[Tensor, "pick dim"]:
        """Copies of some rows, on the device."""
        return self.data[torch.from_numpy(indices).to(self.data.device)].to(self.device)

    @functools.cached_property
    def moments(self) -> tuple[Float64[Tensor, "dim"], Float64[Tensor, ""]]:
        """Sum of the rows, and sum of their squared lengths; not finite if any value is not."""
        total = torch.zeros(self.data.shape[1], dtype=torch.float64, device=self.device)
        squares = torch.zeros((), dtype=torch.float64, device=self.device)
        for block in self.blocks(1):
            wide = block.double()
            total += wide.sum(0)
            squares += wide.square().sum()
        return total, squares


def choose_seeds(
    sample: Float32[Tensor, "row dim"], num_clusters: int, rng: np.random.Generator
) -> Int64[np.ndarray, "cluster"]:
    """Choose rows by greedy k-means++ (Arthur and Vassilvitskii 2007; the best of 2 + ln K candidates).

    Where the sample has fewer distinct rows than clusters, some are chosen more than once.

    Args:
        sample: at least one row; overwritten, because it may be too large to be there twice.
        num_clusters: K.
        rng: where the randomness comes from.

    Returns:
        Indices into the sample.
    """
    centred = sample.sub_(sample.mean(0))
    squares = centred.square().sum(1)
    num_candidates = 2 + int(math.log(num_clusters))
    chosen = [int(rng.integers(len(sample)))]
    nearest = _distances_to(centred, squares, torch.tensor(chosen, device=sample.device))[0]
    while len(chosen) < num_clusters:
        cumulative = nearest.double().cumsum(0)
        thresholds = torch.from_numpy(rng.random(num_candidates)).to(sample.device) * cumulative[-1]
        candidates = torch.searchsorted(cumulative, thresholds, right=True).clamp(max=len(sample) - 1)
        distances = torch.minimum(nearest, _distances_to(centred, squares, candidates))
        best = int(distances.sum(1, dtype=torch.float64).argmin())
        nearest = distances[best]
        chosen.append(int(candidates[best]))
    return np.array(chosen)


def has_converged(previous: float, inertia: float, tolerance: float) -> bool:
    """The stop rule of every backend that is ours to stop: the inertia fell by less than this share."""
    return inertia == 0 or previous - inertia < tolerance * previous


def lloyd(
    rows: RowBlocks,
    init: Float32[Tensor, "cluster dim"],
    *,
    max_iterations: int,
    tolerance: float,
    rng: np.random.Generator,
) -> tuple[Float32[Tensor, "cluster dim"], int]:
    """Lloyd's algorithm with sums in float64; empty clusters are refilled by splitting the largest.

    Returns:
        Centroids, and the number of times that they were moved.
    """
    centroids, previous = init.to(rows.device), math.inf
    for iteration in range(max_iterations):
        inertia, sums, sizes = _expectation(rows, centroids)
        if has_converged(previous, inertia, tolerance):
            return centroids, iteration
        previous = inertia
        means = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centroids.double())
        if (sizes == 0).any():
            _refill(rows, centroids, means, sizes, rng)
        centroids = means.float()
    return centroids, max_iterations


def nearest(
    rows: RowBlocks, centroids: Float32[Tensor, "cluster dim"]
) -> Iterator[tuple[Int64[Tensor, "block"], Float32[Tensor, "block"]]]:
    """Block by block, the nearest centroid of each row and the squared distance to it."""
    centroids = centroids.to(rows.device)
    score = _scorer(centroids, rows.origin)
    for block in rows.blocks(len(centroids)):
        labels = score(block).argmin(1)
        yield labels, (block - centroids[labels]).square().sum(1)


def fit_sklearn(
    embeddings: Float32[np.ndarray, "row dim"],
    init: Float32[np.ndarray, "cluster dim"],
    *,
    max_iterations: int,
    tolerance: float,
    start_inertia: float,
) -> tuple[Float32[np.ndarray, "cluster dim"], int]:
    """The same iterations by scikit-learn, one thread, so that sums are made in one order.

    scikit-learn's own stop rule is another one; it is therefore asked for one iteration at a time, at the
    price of a second pass over the rows in each. It copies its input, and moves empty clusters to the rows
    farthest from their centroids.

    Args:
        embeddings: at least as many rows as centroids.
        init: where to start.
        max_iterations: times that centroids are moved, at most.
        tolerance: see :func:`has_converged`.
        start_inertia: inertia of ``init``.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    centroids, previous = init, start_inertia
    with threadpool_limits(1), warnings.catch_warnings():
        # Fewer distinct rows than clusters: reported as empty clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for iteration in range(max_iterations):
            if previous == 0:
                return centroids, iteration
            step = KMeans(len(init), init=centroids, n_init=1, max_iter=1, tol=0).fit(embeddings)
            centroids, inertia = step.cluster_centers_, float(step.inertia_)
            if has_converged(previous, inertia, tolerance):
                return centroids, iteration + 1
            previous = inertia
    return centroids, max_iterations


def fit_cuml(
    rows: RowBlocks,
    init: Float32[Tensor, "cluster dim"],
    *,
    max_iterations: int,
    tolerance: float,
    rng: np.random.Generator,
) -> tuple[Float32[Tensor, "cluster dim"], int]:
    """The same iterations by cuML, on rows that are on the GPU; they are not copied.

    cuML stops by the same share of inertia (or when centroids hardly move). It leaves empty clusters empty:
    where it did, :func:`lloyd` refills them and goes on for what is left of the iterations, one at least.
    Its sums are float32 and added in no fixed order, so that runs agree to rounding only.
    """
    import cuml

    start = init.to(rows.device).contiguous().clone()
    torch.cuda.current_stream(rows.device).synchronize()
    fitted = cuml.KMeans(
        n_clusters=len(init),
        init=start,
        n_init=1,
        max_iter=max_iterations,
        tol=max(tolerance, 1e-12),
        random_state=int(rng.integers(2**31)),
        output_type="cupy",
    ).fit(rows.data)
    centroids = torch.from_dlpack(fitted.cluster_centers_).float().clone()
    used = int(fitted.n_iter_)
    labels = torch.cat([labels for labels, _ in nearest(rows, centroids)])
    if (torch.bincount(labels, minlength=len(init)) > 0).all():
        return centroids, used
    left = max(1, max_iterations - used)
    centroids, more = lloyd(rows, centroids, max_iterations=left, tolerance=tolerance, rng=rng)
    return centroids, used + more


@functools.cache
def cuml_problem() -> str | None:
    """Why cuML cannot be used in this process, or None when it can. Imports it (7 to 17 s) to find out."""
    if importlib.util.find_spec("cuml") is None:
        return "cuml is not installed (pip install 'raydec[gpu]')"
    if not torch.cuda.is_available():
        return "this process sees no NVIDIA GPU"
    try:
        import cuml

        # Importing and constructing succeed without a usable GPU; only a fit shows it.
        tiny = torch.rand(8, 2, device="cuda")
        torch.cuda.current_stream().synchronize()
        cuml.KMeans(n_clusters=2, init=tiny[:2].clone(), n_init=1, max_iter=1, output_type="cupy").fit(tiny)
    except (ImportError, OSError, RuntimeError) as error:
        return f"cuml does not work here: {' '.join(str(error).split())[:200]}"
    return None


def _distances_to(
    rows: Float[Tensor, "row dim"], squares: Float[Tensor, "row"], picks: Int64[Tensor, "pick"]
) -> Float[Tensor, "pick row"]:
    distances = torch.addmm(squares, rows[picks], rows.T, alpha=-2)
    return (distances + squares[picks, None]).clamp_(min=0)


def _scorer(
    centroids: Float32[Tensor, "cluster dim"], origin: Float64[Tensor, "dim"]
) -> Callable[[Float32[Tensor, "block dim"]], Float32[Tensor, "block cluster"]]:
    """Squared distance of rows to centroids, less the squared distance to the origin.

    With the origin m amid the rows, |x-c|^2 - |x-m|^2 = |c-m|^2 + 2 m.(c-m) - 2 x.(c-m) stays small, so that
    embeddings far from zero lose no digits; and the rows themselves need no pass to be centred.
    """
    centred = centroids.double() - origin
    bias = (centred.square().sum(1) + 2 * (centred @ origin)).float()
    weight = centred.float().T.contiguous()
    return lambda block: torch.addmm(bias, block, weight, alpha=-2)


def _expectation(
    rows: RowBlocks,
    centroids: Float32[Tensor, "cluster dim"],
) -> tuple[float, Float64[Tensor, "cluster dim"], Int64[Tensor, "cluster"]]:
    """One pass: inertia of these centroids, and the sums and sizes of their clusters."""
    score = _scorer(centroids, rows.origin)
    sums = torch.zeros(centroids.shape, dtype=torch.float64, device=rows.device)
    sizes = torch.zeros(len(centroids), dtype=torch.int64, device=rows.device)
    total, squares = rows.moments
    inertia = squares - 2 * (total @ rows.origin) + len(rows) * rows.origin.square().sum()
    for block in rows.blocks(len(centroids)):
        least, labels = score(block).min(1)
        inertia = inertia + least.sum(dtype=torch.float64)
        sizes += torch.bincount(labels, minlength=len(centroids))
        _add_by_label(sums, block.double(), labels)
    return max(float(inertia), 0.0), sums, sizes


def _add_by_label(
    sums: Float64[Tensor, "cluster dim"], rows: Float64[Tensor, "block dim"], labels: Int64[Tensor, "block"]
) -> None:
    if sums.device.type == "cpu":
        sums.index_add_(0, labels, rows)
        return
    # index_add_ is atomic on a GPU, in no fixed order; a product is not.
    member = torch.zeros(len(labels), len(sums), dtype=torch.float64, device=sums.device)
    sums.addmm_(member.scatter_(1, labels[:, None], 1.0).T, rows)


def _refill(
    rows: RowBlocks,
    centroids: Float32[Tensor, "cluster dim"],
    means: Float64[Tensor, "cluster dim"],
    sizes: Int64[Tensor, "cluster"],
    rng: np.random.Generator,
) -> None:
    """Move the centroids of empty clusters, in ``means``: each takes half of the largest cluster.

    The two halves start on either side of the old centroid, along the line to a random member.
    """
    labels = torch.cat([labels for labels, _ in nearest(rows, centroids)]).cpu().numpy()
    left = sizes.cpu().numpy().copy()
    # Which cluster of ``labels`` holds the rows of a cluster that was split just now.
    source = np.arange(len(left))
    for empty in np.flatnonzero(left == 0):
        largest = int(left.argmax())
        if left[largest] < 2:
            return
        members = np.flatnonzero(labels == source[largest])
        member = rows.rows(members[rng.integers(len(members), size=1)])[0].double()
        step = SPLIT_STEP * (member - means[largest])
        means[empty] = means[largest] + step
        means[largest] -= step
        left[empty] = left[largest] // 2
        left[largest] -= left[empty]
        source[empty] = source[largest]
