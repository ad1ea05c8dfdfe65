"""raydec's calls of cuML, checked against the wheel if it is installed, and against a stand-in everywhere.

The wheel can be imported without a GPU, so names and types are checked on any machine; only its fit needs
one.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from raydec.learning import kmeans
from raydec.learning.row_blocks import RowBlocks

HAS_CUML = importlib.util.find_spec("cuml") is not None

# Run in a separate process, because cuML takes seconds to import and loads a compiler.
ASK = """
import inspect, json, sys
import numpy as np
import cuml
arguments = json.loads(sys.argv[1])
model = cuml.KMeans(**arguments, init=np.zeros((2, 3), np.float32), random_state=1)
problem = None
try:
    model.fit(np.arange(12, dtype=np.float32).reshape(4, 3))
except BaseException as error:
    problem = [kind.__name__ for kind in type(error).__mro__]
fit = inspect.signature(cuml.KMeans.fit)
print(json.dumps({
    "version": cuml.__version__,
    "parameters": sorted(model.get_params()),
    "kinds": sorted({p.kind.name for n, p in inspect.signature(cuml.KMeans.__init__).parameters.items()
                     if n != "self"}),
    "fit": [name for name, p in fit.parameters.items() if p.default is inspect.Parameter.empty],
    "documented": inspect.getdoc(cuml.KMeans),
    "problem": problem,
    "n_iter": int(model.n_iter_) if problem is None else None,
    "kind_of_centroids": type(model.cluster_centers_).__module__ if problem is None else None,
}))
"""


class StandIn:
    """cuML's KMeans according to its documentation and its source (26.4), on the CPU.

    It accepts only keyword arguments. An array for ``init`` is copied and its shape checked. ``tol`` is the
    share by which the cost has to fall, or the distance that centroids have to move. A cluster that loses its
    rows keeps its centroid. If the limit ended the iterations, their count exceeds the limit by one.
    """

    made: list[dict[str, Any]]
    parameters = ("n_clusters", "init", "n_init", "max_iter", "tol", "random_state", "output_type")

    def __init__(self, **arguments: Any) -> None:
        assert set(arguments) == set(self.parameters)
        type(self).made.append(arguments)
        self.__dict__.update(arguments)

    def fit(self, X: Any) -> StandIn:
        rows = np.array(X.tolist()) if isinstance(X, torch.Tensor) else np.asarray(X, np.float64)
        centroids = np.array(self.init.tolist())
        if len(rows) < self.n_clusters:
            raise ValueError(f"n_samples={len(rows)} should be >= n_clusters={self.n_clusters}.")
        if centroids.shape != (self.n_clusters, rows.shape[1]):
            raise ValueError(f"The shape of the initial centers {centroids.shape} does not match")
        before, self.n_iter_ = np.inf, self.max_iter + 1
        for iteration in range(1, self.max_iter + 1):
            distances = ((rows[:, None] - centroids) ** 2).sum(-1)
            labels, cost = distances.argmin(1), distances.min(1).sum()
            moved = centroids.copy()
            for cluster in np.unique(labels):
                moved[cluster] = rows[labels == cluster].mean(0)
            shift = ((moved - centroids) ** 2).sum()
            centroids = moved
            if shift < self.tol or (np.isfinite(before) and cost / before > 1 - self.tol):
                self.n_iter_ = iteration
                break
            before = cost
        self.cluster_centers_ = centroids.astype(np.float32)
        return self


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every model that is created with the stand-in."""
    StandIn.made = []
    monkeypatch.setitem(sys.modules, "cuml", SimpleNamespace(KMeans=StandIn))
    stream = SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return StandIn.made


def blobs(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 6)) * 10
    return (centres[np.arange(400) % 4] + rng.normal(size=(400, 6))).astype(np.float32)


def fit(x: np.ndarray, init: np.ndarray, *, max_iterations: int = 20) -> tuple[np.ndarray, int]:
    rows = RowBlocks.of(x, torch.device("cpu"))
    rng = np.random.default_rng(5)
    centroids, used = kmeans.fit_cuml(
        rows, torch.from_numpy(init), max_iterations=max_iterations, tolerance=1e-4, rng=rng
    )
    return centroids.numpy(), used


def sizes(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    labels = ((x[:, None] - centroids) ** 2).sum(-1).argmin(1)
    return np.bincount(labels, minlength=len(centroids))


def test_what_is_asked_of_it_is_in_keywords_and_ours(made: list[dict[str, Any]]) -> None:
    x = blobs()
    fit(x, x[:4])
    (given,) = made
    assert (given["n_clusters"], given["n_init"], given["max_iter"]) == (4, 1, 20)
    assert given["output_type"] == "cupy" and given["tol"] == 1e-4
    assert isinstance(given["init"], torch.Tensor) and given["init"].is_contiguous()


def test_a_tolerance_of_nothing_is_still_above_zero(made: list[dict[str, Any]]) -> None:
    """cuML refuses 0, which to raydec means: never stop early."""
    rows = RowBlocks.of(blobs(), torch.device("cpu"))
    start = rows.data[:4]
    kmeans.fit_cuml(rows, start, max_iterations=3, tolerance=0.0, rng=np.random.default_rng(0))
    assert 0 < made[0]["tol"] < 1e-9


def test_it_finds_what_lloyd_finds(made: list[dict[str, Any]]) -> None:
    x = blobs()
    rows = RowBlocks.of(x, torch.device("cpu"))
    expected, _ = kmeans.lloyd(
        rows, torch.from_numpy(x[:4]), max_iterations=20, tolerance=1e-4, rng=np.random.default_rng(5)
    )
    found, used = fit(x, x[:4])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert 1 <= used <= 20


def test_the_limit_of_iterations_is_never_exceeded(made: list[dict[str, Any]]) -> None:
    """cuML counts one iteration too many if it stopped at the limit."""
    x = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    assert fit(x, x[:8], max_iterations=2)[1] == 2


@pytest.mark.parametrize("num_empty", [1, 3])
def test_clusters_that_it_left_empty_are_refilled(num_empty: int, made: list[dict[str, Any]]) -> None:
    x = blobs()
    far = np.full((num_empty, 6), 1e4, np.float32) + np.arange(num_empty, dtype=np.float32)[:, None]
    init = np.concatenate([x[: 5 - num_empty], far])
    alone = StandIn(
        n_clusters=5, init=init, n_init=1, max_iter=20, tol=1e-4, random_state=0, output_type="cupy"
    )
    assert (sizes(x, alone.fit(x).cluster_centers_) == 0).sum() == num_empty
    centroids, used = fit(x, init)
    assert (sizes(x, centroids) > 0).all()
    assert alone.n_iter_ < used <= 20
    inertia = ((x[:, None] - centroids) ** 2).sum(-1).min(1).sum()
    assert inertia < ((x[:, None] - alone.cluster_centers_) ** 2).sum(-1).min(1).sum()


@pytest.mark.skipif(not HAS_CUML, reason="cuml is not installed (pip install 'raydec[gpu]')")
@pytest.mark.timeout(300)
def test_the_wheel_takes_and_documents_what_is_asked_of_it(made: list[dict[str, Any]]) -> None:
    x = blobs()
    fit(x, x[:4])
    plain = {name: made[0][name] for name in ("n_init", "max_iter", "tol", "output_type")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps({**plain, "n_clusters": 2})],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"].startswith(("26.04", "26.4"))
    assert set(made[0]) <= set(told["parameters"])
    assert told["kinds"] == ["KEYWORD_ONLY"]
    assert [name for name in told["fit"] if name != "self"] == ["X"]
    documented = " ".join(told["documented"].split())
    for words in (
        "If an ndarray is passed, it should be of shape (`n_clusters`, `n_features`) and gives the initial",
        "tol : float64",
        "'numba', 'cupy', 'numpy'",
        "cluster_centers_ : array",
    ):
        assert words in documented
    if told["problem"] is None:
        assert told["kind_of_centroids"].startswith("cupy") and 1 <= told["n_iter"] <= plain["max_iter"] + 1
    else:
        # The exceptions that raydec interprets as "cuML does not work here".
        assert "RuntimeError" in told["problem"]
