"""K-means in blocks of rows: seeding, Lloyd's iterations, and the libraries that can replace them.

:mod:`raydec.learning.clustering` has the interface. Besides the input, memory holds a few blocks, the
centroids and the seeding sample.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from raydec.learning.row_blocks import RowBlocks

# k-means++ on a sample of this size takes a ninth of the time and increases the inertia by 0.1%.
SEED_ROWS = 50_000
SEED_ROWS_PER_CLUSTER = 5_000
# Distance of the two halves of a split cluster from its centroid, as a share of a member's distance.
SPLIT_STEP = 0.25


def choose_seeds(
    sample: RowBlocks, num_clusters: int, rng: np.random.Generator
) -> Int64[np.ndarray, "cluster"]:
    """Choose rows by greedy k-means++ (Arthur and Vassilvitskii 2007; the best of 2 + ln K candidates).

    If the sample has fewer distinct rows than clusters, some are chosen more than once.

    Args:
        sample: at least one row.
        num_clusters: K.
        rng: source of randomness.

    Returns:
        Indices into the sample.
    """
    num_candidates = 2 + int(math.log(num_clusters))
    chosen = [int(rng.integers(len(sample)))]
    closest = torch.full((len(sample),), math.inf, dtype=torch.float64, device=sample.device)
    closest = _nearest_with(sample, np.array(chosen), closest)[0][0]
    while len(chosen) < num_clusters:
        cumulative = closest.cumsum(0)
        thresholds = torch.from_numpy(rng.random(num_candidates)).to(sample.device) * cumulative[-1]
        candidates = torch.searchsorted(cumulative, thresholds, right=True).clamp(max=len(sample) - 1)
        distances, costs = _nearest_with(sample, candidates.cpu().numpy(), closest)
        best = int(costs.argmin())
        closest = distances[best]
        chosen.append(int(candidates[best]))
    return np.array(chosen)


def has_converged(previous: float, inertia: float, tolerance: float) -> bool:
    """The common stopping rule: the inertia fell by less than this share."""
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
        Centroids, and the number of their updates.
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
    """For each block, the nearest centroid of each row and the squared distance to it."""
    centroids = centroids.to(rows.device)
    score = _scorer(centroids, rows.origin)

    def of_block(block: Tensor, _: slice) -> tuple[Tensor, Tensor]:
        labels = score(block).argmin(1)
        return labels, (block - centroids[labels]).square().sum(1)

    yield from rows.map(of_block, len(centroids))


def fit_sklearn(
    embeddings: Float32[np.ndarray, "row dim"],
    init: Float32[np.ndarray, "cluster dim"],
    *,
    max_iterations: int,
    tolerance: float,
    start_inertia: float,
) -> tuple[Float32[np.ndarray, "cluster dim"], int]:
    """The same iterations with scikit-learn, on one thread, so that the order of sums is fixed.

    scikit-learn has a different stopping rule, so it is called for one iteration at a time, which costs a
    second pass over the rows in each. It copies its input, and moves empty clusters to the rows farthest from
    their centroids.

    Args:
        embeddings: at least as many rows as centroids.
        init: initial centroids.
        max_iterations: maximal number of updates of the centroids.
        tolerance: see :func:`has_converged`.
        start_inertia: inertia of ``init``.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    centroids, previous = init, start_inertia
    with threadpool_limits(1), warnings.catch_warnings():
        # Warns of fewer distinct rows than clusters, which are reported as empty clusters anyway.
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
    """The same iterations with cuML, on rows that are on the GPU; they are not copied.

    cuML stops by the same share of inertia (or when centroids hardly move). It leaves empty clusters empty;
    in this case :func:`lloyd` refills them and performs the remaining iterations, at least one. cuML sums in
    float32 in no fixed order, so results agree only up to rounding.
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
    # If the limit ended the fit, its count exceeds the limit by one.
    used = min(int(fitted.n_iter_), max_iterations)
    labels = torch.cat([labels for labels, _ in nearest(rows, centroids)])
    if (torch.bincount(labels, minlength=len(init)) > 0).all():
        return centroids, used
    left = max(1, max_iterations - used)
    centroids, more = lloyd(rows, centroids, max_iterations=left, tolerance=tolerance, rng=rng)
    return centroids, used + more


@functools.cache
def cuml_problem() -> str | None:
    """Why cuML cannot be used in this process, or None if it can; this imports cuML (7 to 17 s)."""
    if importlib.util.find_spec("cuml") is None:
        return "cuml is not installed (pip install 'raydec[gpu]')"
    if not torch.cuda.is_available():
        return "this process sees no NVIDIA GPU"
    try:
        import cuml

        # Importing and constructing succeed even without a usable GPU, so try a fit.
        tiny = torch.rand(8, 2, device="cuda")
        torch.cuda.current_stream().synchronize()
        cuml.KMeans(n_clusters=2, init=tiny[:2].clone(), n_init=1, max_iter=1, output_type="cupy").fit(tiny)
    except (ImportError, OSError, RuntimeError) as error:
        return f"cuml does not work here: {' '.join(str(error).split())[:200]}"
    return None


def _nearest_with(
    sample: RowBlocks, picks: Int64[np.ndarray, "pick"], closest: Float64[Tensor, "row"]
) -> tuple[Float64[Tensor, "pick row"], Float64[Tensor, "pick"]]:
    """For each candidate, squared distances of rows to the nearest seed if it were added, and their sums."""
    score, origin = _scorer(sample.rows(picks), sample.origin), sample.origin.float()
    distances = torch.empty(len(picks), len(sample), dtype=torch.float64, device=sample.device)

    def of_block(block: Tensor, span: slice) -> Tensor:
        scores = score(block) + (block - origin).square().sum(1, keepdim=True)
        distances[:, span] = torch.minimum(closest[span], scores.clamp_(min=0).T.double())
        return distances[:, span].sum(1)

    return distances, torch.stack(list(sample.map(of_block))).sum(0)


def _scorer(
    centroids: Float32[Tensor, "cluster dim"], origin: Float64[Tensor, "dim"]
) -> Callable[[Float32[Tensor, "block dim"]], Float32[Tensor, "block cluster"]]:
    """Squared distance of rows to centroids, minus the squared distance to the origin.

    With an origin m among the rows, |x-c|^2 - |x-m|^2 = |c-m|^2 + 2 m.(c-m) - 2 x.(c-m) is small, so that
    embeddings far from zero lose no digits, without a pass to centre the rows.
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
    num_clusters = len(centroids)
    score = _scorer(centroids, rows.origin)

    def of_block(block: Tensor, _: slice) -> tuple[Tensor, Tensor, Tensor]:
        least, labels = score(block).min(1)
        sizes = torch.bincount(labels, minlength=num_clusters)
        return least.sum(dtype=torch.float64), _sums_by_label(block.double(), labels, num_clusters), sizes

    total, squares = rows.moments
    inertia = squares - 2 * (total @ rows.origin) + len(rows) * rows.origin.square().sum()
    sums = torch.zeros(centroids.shape, dtype=torch.float64, device=rows.device)
    sizes = torch.zeros(num_clusters, dtype=torch.int64, device=rows.device)
    for block_inertia, block_sums, block_sizes in rows.map(of_block, num_clusters):
        inertia = inertia + block_inertia
        sums += block_sums
        sizes += block_sizes
    return max(float(inertia), 0.0), sums, sizes


def _sums_by_label(
    rows: Float64[Tensor, "block dim"], labels: Int64[Tensor, "block"], num_clusters: int
) -> Float64[Tensor, "cluster dim"]:
    if rows.device.type == "cpu":
        return rows.new_zeros(num_clusters, rows.shape[1]).index_add_(0, labels, rows)
    # On a GPU, index_add_ adds in no fixed order; a matrix product is deterministic.
    member = rows.new_zeros(len(labels), num_clusters).scatter_(1, labels[:, None], 1.0)
    return member.T @ rows


def _refill(
    rows: RowBlocks,
    centroids: Float32[Tensor, "cluster dim"],
    means: Float64[Tensor, "cluster dim"],
    sizes: Int64[Tensor, "cluster"],
    rng: np.random.Generator,
) -> None:
    """Move the centroids of empty clusters in ``means``; each takes half of the largest cluster.

    The two halves start on either side of the old centroid, along the line to a random member.
    """
    labels = torch.cat([labels for labels, _ in nearest(rows, centroids)]).cpu().numpy()
    left = sizes.cpu().numpy().copy()
    # The cluster in ``labels`` that holds the rows of each cluster, which differ after a split.
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
