"""The documents' commands that start Ray run unchanged, on a small corpus with a small network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from docs_support import ROOT, blocks, run_block, write_material

from raydec.ray_runtime.session import start_ray

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def two_cpus() -> Iterator[None]:
    start_ray("local", num_cpus=2)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("two_cpus")
def test_the_cross_validation_of_the_documents_trains_every_fold(tmp_path: Path) -> None:
    ((command,),) = blocks("run by the Ray tests only").values()
    write_material(tmp_path)
    (tmp_path / "tune_configs").symlink_to(ROOT / "tune_configs")
    run_block(["python -m raydec.prepare my_corpus stores/mine", command], tmp_path)
    scores = json.loads((tmp_path / "runs" / "crossval" / "crossval.json").read_text())
    assert {score["setting"].split()[0] for score in scores} == {"kind=regressor", "kind=deepemocluster"}
    for score in scores:
        assert not score["missing"] and score["estimate"]["num_utterances"] == 30
    assert len(list((tmp_path / "runs" / "crossval" / "trials").glob("*-fold?"))) == 10
