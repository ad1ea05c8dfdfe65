"""What a training worker does when the K-means actor fails, and what travels between them (no Ray needed)."""

from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch

from raydec.config import ClusteringConfig
from raydec.learning.clusterer import ClusteringTask
from raydec.learning.clustering import KMeansResult
from raydec.learning.worker import LocalWorker
from raydec.placement import Placement
from raydec.ray_runtime import clusterer, kmeans_actor
from raydec.ray_runtime.clusterer import RayClusterer
from raydec.ray_runtime.kmeans_actor import KMeansActor, MissingSharesError
from raydec.ray_runtime.launch import _threads_of


class Calls:
    """An actor in this process: each method as Ray would offer it."""

    def __init__(self, actor: KMeansActor) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> SimpleNamespace:
        method = getattr(self._actor, name)
        return SimpleNamespace(remote=lambda *arguments: lambda: method(*arguments))


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> dict[ray.ObjectRef, object]:
    """Stands in for Ray's object store; returns what was put into it."""
    put: dict[ray.ObjectRef, object] = {}

    def store(value: object) -> ray.ObjectRef:
        reference = ray.ObjectRef.from_random()
        put[reference] = value
        return reference

    def get(reference: object) -> object:
        if isinstance(reference, list):
            return [get(one) for one in reference]
        return put[reference] if isinstance(reference, ray.ObjectRef) else reference()

    context = SimpleNamespace(was_current_actor_reconstructed=False)
    fake = SimpleNamespace(put=store, get=get, get_runtime_context=lambda: context)
    for module in (clusterer, kmeans_actor):
        monkeypatch.setattr(module, "ray", SimpleNamespace(**{**vars(module.ray), **vars(fake)}))
    monkeypatch.setattr(clusterer.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(kmeans_actor, "keep_freed_memory", lambda: None)
    return put


def assign(actor: KMeansActor) -> object:
    config = ClusteringConfig(num_clusters=2, backend="sklearn")
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    return RayClusterer(Calls(actor), LocalWorker(), config, 1).assign(ClusteringTask(0, "s", 2, 0), rows)


def failing(problem: Exception, times: int) -> KMeansActor:
    actor = KMeansActor(1)
    fit, left = actor._fit_centroids, [times]

    def fail(*arguments: object, **options: object) -> object:
        if left[0]:
            left[0] -= 1
            raise problem
        return fit(*arguments, **options)

    actor._fit_centroids = fail
    return actor


@pytest.mark.parametrize("problem", [KeyError("labels"), IndexError("list index"), LookupError("codec")])
def test_a_defect_inside_k_means_is_not_taken_for_a_lost_actor(puts: dict, problem: Exception) -> None:
    actor = failing(problem, times=1)
    with pytest.raises(type(problem)):
        assign(actor)


def test_an_actor_that_lost_its_shares_is_sent_them_again(puts: dict) -> None:
    actor = KMeansActor(1)
    submit, forgotten = actor.submit, []

    def forget_once(*arguments: object) -> None:
        if forgotten:
            submit(*arguments)
        forgotten.append(True)

    actor.submit = forget_once  # type: ignore[method-assign]
    assert len(assign(actor).labels) == 20
    assert len(forgotten) == 2
    with pytest.raises(MissingSharesError, match=r"has the shares of ranks \[\] of 1"):
        actor._fit((9, 9, "s", 9), 1, ClusteringConfig(), 0, None)


def test_the_result_is_put_once_however_many_workers_ask(puts: dict) -> None:
    actor = KMeansActor(1)
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    key = (1, 0, "s", 0)
    for rank in (0, 1):
        actor.submit(key, rank, [kmeans_actor.ray.put(rows[rank::2])])
    config = ClusteringConfig(num_clusters=2, backend="sklearn")
    first, second = (actor.fit(key, 2, config, 0, None)[0] for _ in range(2))
    assert first == second
    assert [puts[first[0]]] == [value for value in puts.values() if isinstance(value, KMeansResult)]


def test_the_actor_of_a_trial_takes_the_threads_of_its_trial(puts: dict) -> None:
    before = torch.get_num_threads()
    try:
        KMeansActor(3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert _threads_of(Placement(2, 4, False)) == 8
    assert _threads_of(Placement((1, 3), 2, False)) == 6


def test_the_actor_fits_with_the_function_that_it_is_given(puts: dict) -> None:
    def first_rows(embeddings: np.ndarray, config: ClusteringConfig, **_: object) -> KMeansResult:
        labels = np.zeros(len(embeddings), np.int32)
        return KMeansResult(embeddings[: config.num_clusters], labels, 0.0, 0, np.array([20, 0]), "rows")

    found = assign(KMeansActor(1, first_rows))
    assert found.backend == "rows"
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.testing.assert_array_equal(found.centroids, rows[:2])
