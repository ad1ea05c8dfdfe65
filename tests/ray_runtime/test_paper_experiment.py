"""The paper's experiment as shipped, made small: every model, with and without unlabeled speech, 2 seeds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from scipy import stats
from stores import make_store

from raydec.console.terminal import run_entry_point
from raydec.ray_runtime.session import start_ray
from raydec.tune import main

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(420)]

SHIPPED = Path(__file__).parents[2] / "tune_configs" / "paper.yaml"
MODELS = {"regressor", "autoencoder", "vae", "deepemocluster, num_clusters=3"}
SMALL = [
    "features.scale=log",
    "model.channels=[4,4,8,8,16,16,16]",
    "model.embedding_dim=32",
    "model.latent_dim=16",
    # Small batches and large steps, so that three epochs of eight utterances suffice to learn something.
    "training.batch_utterances=2",
    "training.epochs=3",
    "training.adam_learning_rate=0.01",
    "search.seeds=[1,2]",
    "search.space.data.attributes=[[arousal]]",
    "search.variants=[{model.kind: regressor, data.unlabeled_utterances: 0}, {model.kind: autoencoder}, "
    "{model.kind: vae}, {model.kind: deepemocluster, clustering.num_clusters: 3}]",
    "ray.num_workers=0",
    "ray.cpus_per_worker=1",
]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("paper")
    store = make_store(folder, num_train=8, num_unlabeled=4)
    start_ray("local", num_cpus=2)
    arguments = [str(SHIPPED), f"data.store={store}", f"output_dir={folder}", "name=paper", *SMALL]
    assert run_entry_point(main, arguments) == 0
    yield folder / "paper"
    ray.shutdown()


def test_every_cell_has_its_row_and_its_seeds(search: Path) -> None:
    rows = list(csv.DictReader((search / "comparison-test.csv").open()))
    assert {row["model"] for row in rows} == MODELS
    assert len(rows) == 7  # a regressor is trained without unlabeled speech only
    assert {(row["attribute"], row["seeds"], row["failed"]) for row in rows} == {("arousal", "2", "0")}
    assert all((search / f"comparison-test.{ending}").stat().st_size for ending in ("md", "tex"))


def test_the_table_says_what_the_runs_predicted(search: Path) -> None:
    document = json.loads((search / "results.json").read_text())
    means = sorted(
        float(np.mean([ccc_of(search / "trials" / run["run"]) for run in entry["runs"]]))
        for entry in document["settings"]
    )
    written = sorted(float(row["CCC"]) for row in csv.DictReader((search / "comparison-test.csv").open()))
    assert np.ptp(means) > 0.01
    np.testing.assert_allclose(written, means, atol=1e-3)


def ccc_of(run: Path) -> float:
    """CCC of the run's test predictions by its textbook definition, on SciPy's correlation."""
    table = pq.read_table(run / "predictions.parquet").to_pandas().query("split == 'test'")
    x, y = table["arousal_predicted"].to_numpy(np.float64), table["arousal"].to_numpy(np.float64)
    product = 2 * stats.pearsonr(x, y)[0] * x.std() * y.std()
    return float(product / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))
