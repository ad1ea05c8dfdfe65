from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.metrics import adjusted_rand_score
from thread_worker import ThreadWorker, on_workers

from raydec.config import ClusteringConfig
from raydec.errors import DivergedError, UserError
from raydec.learning import clustering, kmeans, row_blocks
from raydec.learning.clusterer import ClusterAssignment, ClusteringTask, LocalClusterer
from raydec.learning.clustering import KMeansResult, fit_kmeans, nearest_centroid
from raydec.learning.row_blocks import RowBlocks
from raydec.learning.sampled_clustering import past_one_process
from raydec.learning.worker import LocalWorker

CPU_BACKENDS = ["torch", "sklearn"]


def blobs(
    num_rows: int = 900, dim: int = 8, centers: int = 6, spread: float = 1.0, seed: int = 0
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(centers, dim)) * 3
    return (means[rng.integers(centers, size=num_rows)] + spread * rng.normal(size=(num_rows, dim))).astype(
        np.float32
    )


def slow_lloyd(
    x: np.ndarray, init: np.ndarray, max_iterations: int, tolerance: float
) -> tuple[np.ndarray, int]:
    """A slow float64 implementation of the same algorithm. No cluster may become empty."""
    x, centroids, previous = x.astype(np.float64), init.astype(np.float64), np.inf
    for iteration in range(max_iterations):
        distances = cdist(x, centroids, "sqeuclidean")
        inertia = distances.min(1).sum()
        if previous - inertia < tolerance * previous:
            return centroids, iteration
        previous = inertia
        labels = distances.argmin(1)
        centroids = np.stack([x[labels == k].mean(0) for k in range(len(init))])
    return centroids, max_iterations


def check_consistent(result: KMeansResult, x: np.ndarray, num_clusters: int) -> None:
    """Labels, sizes and inertia agree with the centroids."""
    distances = cdist(x.astype(np.float64), result.centroids.astype(np.float64), "sqeuclidean")
    own = distances[np.arange(len(x)), result.labels]
    np.testing.assert_allclose(own, distances.min(1), rtol=1e-4, atol=1e-6 * max(distances.max(), 1e-30))
    assert result.inertia == pytest.approx(own.sum(), rel=1e-4, abs=1e-9)
    assert result.sizes.tolist() == [(result.labels == k).sum() for k in range(num_clusters)]
    assert result.centroids.dtype == np.float32 and result.labels.dtype == np.int32


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize(
    ("max_iterations", "tolerance"), [(0, 1e-4), (1, 1e-4), (7, 0.0), (50, 1e-4), (50, 1e-2)]
)
def test_every_backend_walks_the_same_path_to_the_same_stop(
    backend: clustering.Backend, max_iterations: int, tolerance: float
) -> None:
    x = blobs(spread=2.0)
    init = x[:6]
    expected, iterations = slow_lloyd(x, init, max_iterations, tolerance)
    result = fit_kmeans(
        x, 6, seed=0, init=init, max_iterations=max_iterations, tolerance=tolerance, backend=backend
    )
    assert (result.num_iterations, result.backend) == (iterations, backend)
    np.testing.assert_allclose(result.centroids, expected, rtol=1e-4, atol=1e-4)
    check_consistent(result, x, 6)


def test_torch_labels_equal_scikit_learns_own_run() -> None:
    x = blobs(2000, 16, spread=2.0)
    oracle = KMeans(6, init=x[:6], n_init=1, max_iter=12, tol=0).fit(x)
    result = fit_kmeans(x, 6, seed=0, init=x[:6], max_iterations=12, tolerance=0.0, backend="torch")
    assert (result.labels == oracle.labels_).all()
    assert result.inertia == pytest.approx(oracle.inertia_, rel=1e-5)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x = blobs()
    whole = fit_kmeans(x, 6, seed=3, backend="torch")
    monkeypatch.setattr(row_blocks, "CPU_BLOCK_VALUES", 7 * 8)
    pieces = fit_kmeans(x, 6, seed=3, backend="torch")
    assert (whole.labels == pieces.labels).all()
    np.testing.assert_allclose(whole.centroids, pieces.centroids, rtol=1e-6)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_seed_decides_everything_and_threads_nothing(
    set_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "CPU_BLOCK_VALUES", 100 * 32)
    x = blobs(3001, 32, centers=40, spread=2.0)
    first, again = (fit_kmeans(x, 12, seed=5, backend="torch") for _ in range(2))
    set_threads(3)
    threaded = fit_kmeans(x, 12, seed=5, backend="torch")
    assert torch.get_num_threads() == 3
    for other in (again, threaded):
        np.testing.assert_array_equal(first.labels, other.labels)
        np.testing.assert_array_equal(first.centroids, other.centroids)
        assert first.inertia == other.inertia
    different = fit_kmeans(x, 12, seed=6, backend="torch")
    assert (first.centroids != different.centroids).any()


def test_threads_hand_back_results_in_order_and_failures_too(
    set_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_threads(3)
    monkeypatch.setattr(row_blocks, "CPU_BLOCK_VALUES", 2)
    rows = RowBlocks.of(np.arange(101, dtype=np.float32)[:, None], torch.device("cpu"))
    assert list(rows.map(lambda block, span: (block[0, 0].item(), span.start, torch.get_num_threads()))) == [
        (float(start), start, 1) for start in range(0, 101, 2)
    ]
    with pytest.raises(ZeroDivisionError):
        list(rows.map(lambda block, _: 1 / (block[0, 0].item() - 50)))
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


def test_well_separated_blobs_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(5, size=500)
    x = (np.eye(5, 12)[truth] * 50 + rng.normal(size=(500, 12))).astype(np.float32)
    assert adjusted_rand_score(truth, fit_kmeans(x, 5, seed=1).labels) == 1


def test_seeding_is_as_good_as_scikit_learns() -> None:
    x = blobs(1500, 8, centers=10)

    def cost(seeds: np.ndarray) -> float:
        return float(cdist(x, seeds, "sqeuclidean").min(1).mean())

    ours, theirs = [], []
    for seed in range(40):
        sample = RowBlocks.of(x, torch.device("cpu"))
        chosen = kmeans.choose_seeds(sample, 10, np.random.default_rng(seed))
        assert len(set(chosen.tolist())) == 10
        ours.append(cost(x[chosen]))
        theirs.append(cost(kmeans_plusplus(x, 10, random_state=seed)[0]))
    standard_error = np.hypot(np.std(ours), np.std(theirs)) / np.sqrt(40)
    assert abs(np.mean(ours) - np.mean(theirs)) < 3 * standard_error


def test_seeding_uses_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "SEED_ROWS", 100)
    monkeypatch.setattr(kmeans, "SEED_ROWS_PER_CLUSTER", 10)
    seen = []
    choose = kmeans.choose_seeds

    def spy(sample: RowBlocks, *rest: object) -> np.ndarray:
        seen.append(len(sample))
        return choose(sample, *rest)

    monkeypatch.setattr(kmeans, "choose_seeds", spy)
    x = blobs()
    check_consistent(fit_kmeans(x, 6, seed=0), x, 6)
    fit_kmeans(x, 20, seed=0)
    assert seen == [100, 200]


def test_a_warm_start_from_the_answer_stops_at_once() -> None:
    x = blobs()
    done = fit_kmeans(x, 6, seed=0, tolerance=1e-9, max_iterations=100, backend="torch")
    again = fit_kmeans(x, 6, seed=1, init=done.centroids, backend="torch")
    assert again.num_iterations == 1
    assert (again.labels == done.labels).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_empty_clusters_are_refilled(backend: clustering.Backend) -> None:
    x = blobs(centers=1)
    init = np.concatenate([x.mean(0, keepdims=True), np.full((5, 8), 1e4, dtype=np.float32)])
    result = fit_kmeans(x, 6, seed=0, init=init, max_iterations=30, backend=backend)
    check_consistent(result, x, 6)
    assert (result.sizes > 0).all()
    fresh = fit_kmeans(x, 6, seed=0, max_iterations=30, backend=backend)
    assert result.inertia < 1.1 * fresh.inertia


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("num_rows", [1, 3, 5, 6, 200])
@pytest.mark.parametrize("distinct", [1, 3])
def test_fewer_distinct_rows_than_clusters(backend: clustering.Backend, num_rows: int, distinct: int) -> None:
    x = np.eye(3, 4, dtype=np.float32)[np.arange(num_rows) % distinct] + 0.1
    result = fit_kmeans(x, 5, seed=0, backend=backend)
    check_consistent(result, x, 5)
    assert result.inertia == pytest.approx(0, abs=1e-9)
    assert (result.sizes > 0).sum() >= min(distinct, num_rows)
    assert result.sizes.sum() == num_rows


def test_embeddings_far_from_the_origin_keep_their_clusters() -> None:
    x = blobs(spread=2.0)
    init = x[:6]
    moved = x + np.float32(1000)
    near = fit_kmeans(x, 6, seed=0, init=init, backend="torch")
    far = fit_kmeans(moved, 6, seed=0, init=moved[:6], backend="torch")
    assert far.num_iterations == near.num_iterations
    assert (far.labels == near.labels).mean() > 0.998  # the shift itself rounds the rows
    assert far.inertia == pytest.approx(near.inertia, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_changes_nothing(scale: float) -> None:
    x = blobs()
    scaled = (x * scale).astype(np.float32)
    one = fit_kmeans(x, 6, seed=0, init=x[:6], backend="torch")
    other = fit_kmeans(scaled, 6, seed=0, init=scaled[:6], backend="torch")
    assert (one.labels == other.labels).all()
    assert other.inertia == pytest.approx(one.inertia * scale**2, rel=1e-4)


def test_max_fit_rows_fits_on_a_sample_and_assigns_all() -> None:
    x = blobs(3000)
    result = fit_kmeans(x, 6, seed=0, max_fit_rows=500, backend="torch")
    check_consistent(result, x, 6)
    assert len(result.labels) == 3000
    full = fit_kmeans(x, 6, seed=0, backend="torch")
    assert (result.centroids != full.centroids).any()
    assert result.inertia < 1.1 * full.inertia
    same = fit_kmeans(x, 6, seed=0, max_fit_rows=3000, backend="torch")
    np.testing.assert_array_equal(same.centroids, full.centroids)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_input_may_be_read_only_and_is_never_changed(backend: clustering.Backend) -> None:
    x = blobs()
    before = x.copy()
    x.setflags(write=False)
    init = x[:6]
    fit_kmeans(x, 6, seed=0, backend=backend)
    fit_kmeans(x, 6, seed=0, init=init, backend=backend)
    nearest_centroid(x, init)
    np.testing.assert_array_equal(x, before)
    wide = np.concatenate([before, before], axis=1)
    strided = fit_kmeans(wide[:, :8], 6, seed=0, backend=backend)
    np.testing.assert_array_equal(strided.labels, fit_kmeans(x, 6, seed=0, backend=backend).labels)


def test_nearest_centroid_equals_all_distances() -> None:
    x, centroids = blobs(), blobs(5, seed=1)
    labels, distances = nearest_centroid(x, centroids)
    oracle = cdist(x, centroids, "sqeuclidean")
    assert (labels == oracle.argmin(1)).all()
    np.testing.assert_allclose(distances, oracle.min(1), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("max_fit_rows", [None, 10])
def test_embeddings_that_are_not_finite_are_named(value: float, max_fit_rows: int | None) -> None:
    x = blobs(100)
    x[17, 3] = value
    with pytest.raises(DivergedError, match=r"1 of 10?0 embeddings are not finite"):
        fit_kmeans(x, 3, seed=0, max_fit_rows=max_fit_rows)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="empty"):
        fit_kmeans(np.zeros((0, 4), dtype=np.float32), 3, seed=0)
    with pytest.raises(ValueError, match="init is"):
        fit_kmeans(blobs(), 3, seed=0, init=np.zeros((2, 8), dtype=np.float32))
    with pytest.raises(ValueError, match="init contains non-finite values"):
        fit_kmeans(blobs(), 3, seed=0, init=np.full((3, 8), np.nan, dtype=np.float32))
    with pytest.raises(UserError, match=r"clustering.backend=cuml cannot be used: .* CPU"):
        fit_kmeans(blobs(), 3, seed=0, backend="cuml", device="cpu")


def test_auto_is_torch_on_a_cpu() -> None:
    assert fit_kmeans(blobs(), 3, seed=0, device="cpu").backend == "torch"


def test_cuml_problem_names_what_is_missing() -> None:
    if not torch.cuda.is_available():
        problem = kmeans.cuml_problem()
        assert problem is not None
        assert "not installed" in problem or "no NVIDIA GPU" in problem


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_gpu_finds_what_the_cpu_finds(backend: clustering.Backend) -> None:
    if backend == "auto":
        pytest.importorskip("cuml", reason="cuml is not installed (pip install 'raydec[gpu]')")
    x = blobs(5000, 32, spread=2.0)
    on_cpu = fit_kmeans(x, 6, seed=0, init=x[:6], backend="torch", device="cpu")
    on_gpu = fit_kmeans(x, 6, seed=0, init=x[:6], backend=backend, device="cuda")
    assert on_gpu.backend == ("cuml" if backend == "auto" else backend)
    check_consistent(on_gpu, x, 6)
    assert on_gpu.inertia == pytest.approx(on_cpu.inertia, rel=1e-3)


def test_local_clusterer_is_fit_kmeans() -> None:
    x = blobs()
    config = ClusteringConfig(num_clusters=6, max_iterations=9)
    assignment = LocalClusterer(LocalWorker(), config).assign(ClusteringTask(0, "labeled", 6, 4), x)
    expected = fit_kmeans(x, 6, seed=4, max_iterations=9)
    for name in ("labels", "centroids", "sizes"):
        np.testing.assert_array_equal(getattr(assignment, name), getattr(expected, name))
    assert (assignment.inertia, assignment.num_iterations) == (expected.inertia, expected.num_iterations)
    assert set(assignment.timings) == {"gather_s", "fit_s", "broadcast_s"}


@pytest.mark.parametrize("max_fit_rows", [None, 400, 5000])
@pytest.mark.parametrize("shares", [[450, 450], [899, 1], [900, 0], [0, 300, 600]])
def test_several_workers_get_what_one_gets(shares: list[int], max_fit_rows: int | None) -> None:
    x = blobs()
    expected = fit_kmeans(x, 6, seed=4, init=x[:6], max_fit_rows=max_fit_rows)
    bounds = np.cumsum([0, *shares])

    def run(worker: ThreadWorker) -> ClusterAssignment:
        config = ClusteringConfig(num_clusters=6, max_fit_rows=max_fit_rows)
        # The fit gets only the sample.
        fitting = LocalClusterer(worker, config.model_copy(update={"max_fit_rows": None}))
        clusterer = past_one_process(fitting, worker, config)
        share = x[bounds[worker.rank] : bounds[worker.rank + 1]]
        return clusterer.assign(ClusteringTask(1, "labeled", 6, 4, x[:6]), share)

    assignments = on_workers(len(shares), run)
    np.testing.assert_array_equal(np.concatenate([each.labels for each in assignments]), expected.labels)
    for share, assignment in zip(shares, assignments, strict=True):
        assert len(assignment.labels) == share
        np.testing.assert_array_equal(assignment.centroids, expected.centroids)
        assert assignment.sizes.tolist() == expected.sizes.tolist()
        assert assignment.inertia == pytest.approx(expected.inertia, rel=1e-6)
        assert ("assign_s" in assignment.timings) == (max_fit_rows == 400)


MEMORY_OF_A_FIT = """
import threading
import numpy as np
from raydec.learning.clustering import fit_kmeans
from raydec.learning.host import keep_freed_memory

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024

keep_freed_memory()
rows = np.random.default_rng(0).standard_normal((200_000, 128), np.float32)
fit_kmeans(rows[:60_000], 5, seed=0, max_iterations=2)
before, peak, ended = anonymous(), [0], threading.Event()

def watch():
    while not ended.wait(0.01):
        peak.append(anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
fit_kmeans(rows, 5, seed=0, max_iterations=2)
ended.set()
watcher.join()
print((max(peak) - before) / rows.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_fit_holds_no_copy_of_its_rows() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY_OF_A_FIT], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5, "memory beside the rows, as a share of them"
