"""A run whose centroids somebody else finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from report_support import make_tiny_store
from sklearn.cluster import BisectingKMeans

from raydec.config import ClusteringConfig, config_from_dict
from raydec.experiment import train_run
from raydec.learning.clusterer import CentroidFit
from raydec.learning.clustering import KMeansResult, nearest_centroid
from raydec.model.directory import load_model

CALLS: list[tuple[int, np.ndarray]] = []


def bisecting(embeddings: np.ndarray, config: ClusteringConfig, *, seed: int, **_: Any) -> KMeansResult:
    found = BisectingKMeans(config.num_clusters, random_state=seed % 2**32).fit(embeddings.astype(np.float64))
    centroids = found.cluster_centers_.astype(np.float32)
    CALLS.append((len(embeddings), centroids))
    labels, distances = nearest_centroid(embeddings, centroids)
    sizes = np.bincount(labels, minlength=config.num_clusters)
    return KMeansResult(centroids, labels, float(distances.sum()), 1, sizes, "bisecting")


def test_a_function_of_yours_finds_the_centroids(tmp_path: Path) -> None:
    fit: CentroidFit = bisecting
    config = config_from_dict(
        {
            "name": "own",
            "output_dir": str(tmp_path),
            "data": {"store": str(make_tiny_store(tmp_path)), "attributes": ["arousal"]},
            "model": {"channels": [2] * 7, "embedding_dim": 8},
            "training": {"epochs": 1, "batch_utterances": 8, "recipe": "modern", "schedule": "two_stage"},
            "clustering": {"num_clusters": 3, "label_weight": 0.0},
            "ray": {"num_workers": 0},
        }
    )
    run = train_run(config, clusterer=fit)
    # The unlabeled and the labeled stage, and once more under the best weights.
    assert [count for count, _ in CALLS] == [4 * 11, 12 * 11, 12 * 11]
    trained = load_model(run.folder / "model").centroids
    assert trained is not None
    np.testing.assert_array_equal(trained, CALLS[-1][1])
