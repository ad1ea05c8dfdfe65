"""Targets: rows, encoding, and losses that can be merged over workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import f1_score, log_loss
from stores import make_store

from raydec.config import Config, config_from_dict
from raydec.errors import UserError
from raydec.experiment import train_run
from raydec.features.store import FeatureStore
from raydec.learning.ccc import concordance
from raydec.learning.losses import CccLoss, Criterion, CrossEntropyLoss
from raydec.learning.mergeable import Mergeable
from raydec.learning.selection import select_rows
from raydec.learning.targets.attributes import AttributesTarget
from raydec.learning.targets.emotions import EmotionsTarget
from raydec.learning.targets.protocol import Target
from raydec.model.directory import load_model
from raydec.model.outputs import Outputs
from raydec.search.metrics import known_metrics

TWO = AttributesTarget(Outputs(("arousal", "valence"), (4.0, 3.0), (2.0, 0.5)))
TABLE = pa.table({"arousal": [6.0, None, 1.0, None], "valence": [None, 3.5, 2.0, None]})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("targets"))


def test_attributes_are_z_normalised_and_nan_where_unlabeled() -> None:
    assert isinstance(TWO, Target)
    assert TWO.outputs.labeled(TABLE).tolist() == [True, True, True, False]
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


CLASSES = pa.table({"emotion": ["A", "N", None, "F", "A"], "speaker": ["1", "2", "1", "2", "2"]})


def test_classes_are_numbered_and_others_count_as_unlabeled() -> None:
    target = EmotionsTarget(("N", "A"))
    assert isinstance(target, Target)
    assert target.outputs.labeled(CLASSES).tolist() == [True, True, False, False, True]
    np.testing.assert_array_equal(target.encode(CLASSES)[:, 0], [1, 0, np.nan, np.nan, 1])


def test_cross_entropy_over_any_split_is_scikit_learns_weighted_log_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0.0, 2, 1, 1, 2, torch.nan, 0, 2, 2])[:, None]
    weights = np.array([3.0, 1.0, 0.5])
    criterion: Criterion = CrossEntropyLoss(weights.tolist())
    parts = [criterion.statistics(logits[rows], labels[rows]) for rows in (slice(0, 4), slice(4, 9))]
    assert isinstance(parts[0], Mergeable)
    loss = criterion.loss(parts[0].merge(parts[1]))
    known = ~labels[:, 0].isnan().numpy()
    numbers = labels[known, 0].numpy().astype(int)
    probabilities = logits.detach().softmax(1).numpy()[known]
    wanted = log_loss(numbers, probabilities, sample_weight=weights[numbers])
    assert loss.item() == pytest.approx(wanted)
    loss.backward()
    assert (logits.grad[5] == 0).all() and (logits.grad[known] != 0).all()


def test_a_batch_without_a_class_has_no_loss() -> None:
    criterion = CrossEntropyLoss([1.0, 1.0])
    logits = torch.ones(2, 2, requires_grad=True)
    loss = criterion.loss(criterion.statistics(logits, torch.full((2, 1), torch.nan)))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def with_emotions(store: Path, emotions: object, **loss: object) -> Config:
    data = {"store": str(store), "attributes": [], "emotions": emotions}
    return config_from_dict({"data": data, "loss": loss})


def test_all_takes_the_classes_of_the_training_split_and_weights_balance_them(store: Path) -> None:
    rows = select_rows(with_emotions(store, "all", balance_classes=True), FeatureStore.open(store))
    (target,) = rows.targets.members
    emotions = FeatureStore.open(store).utterances.take(rows.labeled)["emotion"].to_pylist()
    assert target.outputs.classes == {"emotion": tuple(sorted(set(emotions)))}
    # Every class weighs the same in all, and an utterance weighs 1 on average.
    by_class = {
        name: emotions.count(name) * weight
        for name, weight in zip(target.outputs.classes["emotion"], target._class_weights, strict=True)
    }
    assert all(total == pytest.approx(len(emotions) / len(by_class)) for total in by_class.values())
    assert rows.targets.selection == "f1_emotion"


def test_utterances_of_other_classes_join_the_unlabeled_pool(store: Path) -> None:
    opened = FeatureStore.open(store)
    rows = select_rows(with_emotions(store, ["N", "F"]), opened)
    taken = opened.utterances.take(rows.labeled)["emotion"].to_pylist()
    assert set(taken) == {"N", "F"}
    train = opened.rows("train")
    assert set(train) - set(rows.labeled) <= set(rows.unlabeled)


@pytest.mark.parametrize(
    ("emotions", "message"),
    [
        (["N", "Q"], r"data.emotions: no training utterance of .* has the class Q; its classes are A \(1\)"),
        (["N"], "data.emotions=N: a single class cannot be learned"),
        (["N", "A", "N"], "data.emotions names a class twice"),
        ([], "data.attributes and data.emotions are both empty"),
    ],
)
def test_classes_that_cannot_be_learned_are_refused(store: Path, emotions: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select_rows(with_emotions(store, emotions), FeatureStore.open(store))


def test_a_run_of_classes_beside_attributes_writes_both(store: Path, tmp_path: Path) -> None:
    """From the config to the model directory: the best epoch by CCC, metrics, predictions and summary."""
    config = config_from_dict(
        {
            "name": "both",
            "output_dir": str(tmp_path),
            "data": {"store": str(store), "attributes": ["arousal"], "emotions": ["N", "F"]},
            "model": {"channels": [2] * 7, "embedding_dim": 8},
            "training": {"epochs": 1, "batch_utterances": 4, "recipe": "modern"},
            "clustering": {"num_clusters": 3},
            "ray": {"num_workers": 0},
        }
    )
    run = train_run(config)
    (metrics,) = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics["train/loss_class"] == pytest.approx(np.log(2), abs=0.1)
    assert {"valid/ccc", "valid/ccc_arousal", "train/loss_emotion"} < metrics.keys()
    assert metrics.keys() - {"epoch"} <= known_metrics(config)
    table = pq.read_table(run.folder / "predictions.parquet").to_pandas()
    test = table[(table["split"] == "test") & table["emotion"].isin(["N", "F"])]
    assert run.summary["classes"]["test"]["f1_emotion"] == pytest.approx(
        f1_score(test["emotion"], test["emotion_predicted"], labels=["F"], average="macro")
    )
    np.testing.assert_allclose(table["emotion_N"] + table["emotion_F"], 1)
    assert set(run.summary["ccc"]["test"]) == {"arousal"}
    model = load_model(run.folder / "model")
    assert model.outputs.names == ("arousal", "emotion_N", "emotion_F")
    assert model.extra["scores"]["test"]["uar_emotion"] == run.summary["classes"]["test"]["uar_emotion"]
