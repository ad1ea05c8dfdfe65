"""Targets: rows, encoding, and losses that can be merged over workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from stores import make_store

from raydec.config import config_from_dict
from raydec.features.store import FeatureStore
from raydec.learning.ccc import concordance
from raydec.learning.losses import CccLoss, Criterion
from raydec.learning.mergeable import Mergeable
from raydec.learning.selection import select_rows
from raydec.learning.targets.attributes import AttributesTarget
from raydec.learning.targets.protocol import Target
from raydec.model.outputs import Outputs

TWO = AttributesTarget(Outputs(("arousal", "valence"), (4.0, 3.0), (2.0, 0.5)))
TABLE = pa.table({"arousal": [6.0, None, 1.0, None], "valence": [None, 3.5, 2.0, None]})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("targets"))


def test_attributes_are_z_normalised_and_nan_where_unlabeled() -> None:
    assert isinstance(TWO, Target)
    assert TWO.labeled(TABLE).tolist() == [True, True, True, False]
    np.testing.assert_array_equal(
        TWO.encode(TABLE), [[1.0, np.nan], [np.nan, 1.0], [-1.5, -2.0], [np.nan, np.nan]]
    )


def test_attributes_score_their_labeled_utterances() -> None:
    predictions = np.array([[5.0, 9.0], [9.0, 3.0], [2.0, 2.5], [9.0, 9.0]])
    scores = TWO.score(predictions, TABLE, np.random.default_rng(0))
    wanted = [
        concordance(np.array([5.0, 2.0]), np.array([6.0, 1.0])),
        concordance(np.array([3.0, 2.5]), np.array([3.5, 2.0])),
    ]
    assert scores == pytest.approx(
        {"ccc_arousal": wanted[0], "ccc_valence": wanted[1], "ccc": np.mean(wanted)}
    )


def test_a_label_scale_is_that_of_the_training_split(store: Path) -> None:
    config = config_from_dict({"data": {"store": str(store), "attributes": ["valence", "arousal"]}})
    opened = FeatureStore.open(store)
    targets = select_rows(config, opened).targets
    train = opened.utterances.to_pandas().query("split == 'train'")
    assert targets.outputs.attributes == ("valence", "arousal")
    np.testing.assert_allclose(targets.outputs.mean, train[["valence", "arousal"]].mean())
    np.testing.assert_allclose(targets.outputs.std, train[["valence", "arousal"]].std(ddof=0))
    assert targets.selection == "ccc" and targets.metrics == ("ccc_valence", "ccc_arousal")


@pytest.mark.parametrize("cuts", [[0], [3, 3], [1, 5]])
def test_a_loss_over_any_split_has_the_gradient_of_the_whole(cuts: list[int]) -> None:
    criterion: Criterion = CccLoss()
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(7, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    labels[2, 0] = torch.nan
    whole = criterion.loss(criterion.statistics(output, labels))
    (wanted,) = torch.autograd.grad(whole, output)
    pieces = [
        criterion.statistics(o, y)
        for o, y in zip(output.tensor_split(cuts), labels.tensor_split(cuts), strict=True)
    ]
    merged: Mergeable = pieces[0]
    for piece in pieces[1:]:
        merged = merged.merge(piece)
    found = criterion.loss(merged)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(torch.autograd.grad(found, output)[0], wanted)


def test_rows_are_chosen_without_torch(store: Path) -> None:
    code = (
        "import sys\n"
        "from raydec.config import config_from_dict\n"
        "from raydec.learning.selection import check_data\n"
        "check_data(config_from_dict({'data': {'store': sys.argv[1]}}))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
