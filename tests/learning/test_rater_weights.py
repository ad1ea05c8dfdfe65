"""Labels weighted by the agreement of their annotators: the rule, what it is fitted to, and whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from stores import make_store

from raydec.config import Config, config_from_dict, load_config
from raydec.errors import UserError
from raydec.experiment import train_run
from raydec.features.store import FeatureStore
from raydec.learning.rater_weights import RaterWeights
from raydec.learning.selection import check_data, select_rows

Lists = list[list[float] | None]
LISTS: Lists = [[1, 1, 1], [2, 6], [4], None, [], [3, 3.5, 4, 4.5, 5], [1, 7, 1, 7]]


def table_of(lists: Lists, labels: list[float | None] | None = None) -> pa.Table:
    given = [1.0] * len(lists) if labels is None else labels
    return pa.table({"arousal": given, "arousal_ratings": pa.array(lists, pa.list_(pa.float32()))})


def fitted(table: pa.Table, power: float = 1.0) -> RaterWeights:
    weights = RaterWeights.fit(table, "arousal", power)
    assert weights is not None
    return weights


def by_loop(lists: Lists, power: float) -> list[float]:
    """The rule as it is written in docs/msp-podcast.md."""
    several = [ratings for ratings in lists if ratings and len(ratings) > 1]
    pooled = sum((len(r) - 1) * np.var(r, ddof=1) for r in several) / sum(len(r) - 1 for r in several)
    errors = []
    for ratings in lists:
        if not ratings:
            errors.append(None)
            continue
        n = len(ratings)
        own = np.var(ratings, ddof=1) if n > 1 else 0.0
        errors.append(((n - 1) * own + pooled) / n / n)
    mean = np.mean([error for error in errors if error is not None])
    raw = [None if error is None else (1 + error / mean) ** -power for error in errors]
    scale = np.mean([weight for weight in raw if weight is not None])
    return [1.0 if weight is None else weight / scale for weight in raw]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0])
def test_weights_follow_the_rule(power: float) -> None:
    table = table_of(LISTS)
    np.testing.assert_allclose(fitted(table, power).of(table), by_loop(LISTS, power), rtol=1e-12)


def test_agreement_and_further_annotators_weigh_more() -> None:
    pairs: list[tuple[list[float], list[float]]] = [
        ([3, 4, 5], [2, 4, 6]),
        ([4, 4], [3, 5]),
        ([3, 5, 3, 5], [3, 5]),
        ([4, 4, 4], [4, 4]),
        ([4, 4], [4]),
    ]
    weights = fitted(table_of(LISTS), 1.0)
    for more, less in pairs:
        first, second = weights.of(table_of([more, less]))
        assert first > second, (more, less)


def test_weights_are_fitted_to_labeled_rows() -> None:
    labels = [1.0] * len(LISTS)
    table = table_of([*LISTS, [1.0, 7.0]], [*labels, None])
    assert fitted(table) == fitted(table_of(LISTS))


def test_full_agreement_everywhere_weighs_everything_alike() -> None:
    table = table_of([[2, 2], [3, 3, 3]])
    assert fitted(table).of(table).tolist() == [1, 1]


@pytest.mark.parametrize("lists", [[[3.0], [], None], [], [None]])
def test_no_two_ratings_of_one_utterance_fit_nothing(lists: Lists) -> None:
    assert RaterWeights.fit(table_of(lists), "arousal", 1.0) is None
    assert RaterWeights.fit(table_of(lists).select(["arousal"]), "arousal", 1.0) is None


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("rated"), rated=True)


@pytest.fixture(scope="module")
def unrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("unrated"))


def config(store: Path, folder: Path = Path("runs"), name: str = "run", **loss: object) -> Config:
    return config_from_dict(
        {
            "name": name,
            "output_dir": str(folder),
            "data": {"store": str(store), "attributes": ["arousal", "valence"]},
            "model": {"channels": [2, 2, 4, 4, 4, 4, 4], "embedding_dim": 8},
            "training": {"epochs": 1, "batch_utterances": 8},
            "clustering": {"num_clusters": 3},
            "loss": loss,
            "ray": {"num_workers": 0},
        }
    )


def test_only_training_rows_decide(rated: Path) -> None:
    store = FeatureStore.open(rated)
    targets = select_rows(config(rated, rater_weight=1), store).targets
    train = store.utterances.take(store.rows("train"))
    encoded = targets.encode(train)
    assert encoded.shape == (8, 4)
    lists = train["valence_ratings"].to_pylist()
    np.testing.assert_allclose(encoded[:, 3], by_loop(lists, 1.0), rtol=1e-6)
    assert np.ptp(encoded[:, 2:], axis=0).min() > 0.1
    held_out = np.isin(np.arange(len(store)), store.rows("train"), invert=True)
    others = [
        [1.0, 7.0] if out else given
        for out, given in zip(held_out, store.utterances["valence_ratings"].to_pylist(), strict=True)
    ]
    changed = store.with_columns({"valence_ratings": pa.array(others, pa.list_(pa.float32()))})
    again = select_rows(config(rated, rater_weight=1), changed).targets
    assert np.array_equal(again.encode(train), encoded)


def test_scores_are_not_weighted(rated: Path) -> None:
    store = FeatureStore.open(rated)
    table = store.utterances.take(store.rows("validation"))
    predictions = np.random.default_rng(0).normal(4, 1, (len(table), 2))
    plain, weighted = (select_rows(config(rated, rater_weight=power), store).targets for power in (0, 2))
    scores = [each.score(predictions, table, np.random.default_rng(0)) for each in (plain, weighted)]
    assert scores[0] == scores[1]


def numbers(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "throughput/"))} for line in lines]


@pytest.mark.parametrize("recipe", ["modern", "reference"])
def test_a_weight_of_zero_changes_nothing_and_another_changes_the_loss(
    rated: Path, unrated: Path, tmp_path: Path, recipe: str
) -> None:
    def run(store: Path, name: str, **loss: object) -> list[dict]:
        chosen = config(store, tmp_path, name, **loss)
        training = chosen.training.model_copy(update={"recipe": recipe})
        return numbers(train_run(chosen.model_copy(update={"training": training})).folder)

    without, zero = run(unrated, "without"), run(rated, "zero", rater_weight=0)
    assert without == zero
    weighted = run(rated, "weighted", rater_weight=2)
    assert weighted[0]["train/loss_emotion"] != zero[0]["train/loss_emotion"]
    assert weighted[0].keys() == zero[0].keys()


def test_a_store_without_ratings_is_refused_in_one_line(unrated: Path) -> None:
    with pytest.raises(UserError) as refused:
        check_data(config(unrated, rater_weight=1))
    message = str(refused.value)
    assert message.startswith("loss.rater_weight=1: no training utterance of ")
    assert "ratings of arousal, valence; set it to 0" in message and "labels_detailed.csv" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.rater_weight=-1"], "loss.rater_weight=-1: input should be greater than or equal to 0"),
        (
            ["loss.rater_weight=1", "data.attributes=[]", "data.emotions=all"],
            "data.attributes is empty; set it",
        ),
    ],
)
def test_settings_without_a_meaning_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, ["data.store=s", *overrides])


def test_weights_reach_the_loss_as_columns_of_the_labels(rated: Path) -> None:
    store = FeatureStore.open(rated)
    targets = select_rows(config(rated, rater_weight=1), store).targets
    ((target, outputs, columns),) = targets.parts()
    labels = targets.encode(store.utterances.take(store.rows("train")))[:, columns]
    x = np.random.default_rng(1).normal(size=(8, 2))
    criterion = target.criterion()
    loss = criterion.loss(criterion.statistics(torch.from_numpy(x)[:, outputs], torch.from_numpy(labels)))
    each = []
    for place in range(2):
        y, weight = labels[:, place], labels[:, place + 2]
        covariance = np.cov(x[:, place], y, aweights=weight, ddof=0)
        offset = np.average(x[:, place] - y, weights=weight)
        each.append(1 - 2 * covariance[0, 1] / (np.trace(covariance) + offset**2))
    assert loss.item() == pytest.approx(np.mean(each), rel=1e-12)
