"""Use of splits for training, validation and test, and the statistics for normalisation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus_support import make_store, many, write_corpus
from report_support import TINY

from raydec.config import load_config
from raydec.errors import UserError
from raydec.evaluation.scoring import evaluate
from raydec.experiment import resolve, train_run
from raydec.features.store import FeatureStore
from raydec.learning.data import select_data
from raydec.learning.selection import check_data
from raydec.pages.analysis import analyse
from raydec.splits import canonical_split, joint_name, parts_of


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Four folds without a split named train; labels and sounds differ between them."""
    folder = tmp_path_factory.mktemp("folds")
    utterances = [
        replace(spoken, arousal=1.0 + (3 * fold + number) % 7)
        for fold, count in enumerate((5, 7, 6, 6))
        for number, spoken in enumerate(many(count, f"fold{fold}", f"f{fold}-", speaker=f"s{fold}"))
    ]
    return make_store(write_corpus(folder / "audio", utterances), folder / "store")


def settings(store: FeatureStore, *overrides: str):
    common = ("data.attributes=[arousal]", "training.epochs=1", f"data.store={store.path}")
    return load_config(None, [*TINY, *common, *overrides])


@pytest.mark.parametrize(
    "overrides, shared",
    [
        (["data.train_split=dev", "data.validation_split=validation"], "'validation'"),
        (["data.validation_split=Training"], "'train'"),
        (["data.validation_split=test", "data.test_split=[test, test2]"], "'test'"),
        (["data.test_split=Development"], "'validation'"),
        (["data.train_split=[fold0, FOLD1]", "data.validation_split=fold1"], "'fold1'"),
    ],
)
def test_a_split_in_two_parts_is_refused_by_name(overrides: list[str], shared: str) -> None:
    with pytest.raises(UserError, match=rf"both name {shared}; training, validation and test must not"):
        load_config(None, overrides)


@pytest.mark.parametrize(
    "override, message",
    [
        ("data.train_split=[]", "name at least one"),
        ("data.train_split=unlabeled", "names 'unlabeled'"),
        ("data.test_split=a/b", "may only contain letters"),
        ("data.test_split=[true]", "must be the name of a split"),
    ],
)
def test_what_is_no_split_is_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, [override])


def test_names_are_canonical_in_every_part_and_written_as_they_are_read() -> None:
    config = load_config(
        None,
        ["data.train_split=Training", "data.validation_split=[Fold 3, fold3, 4]", "data.test_split=TEST-1"],
    )
    assert config.data.train_split == ("train",)
    assert config.data.validation_split == ("fold3", "4")
    assert config.data.test_split == ("test1",)
    written = config.model_dump(mode="json")["data"]
    assert (written["train_split"], written["validation_split"]) == ("train", ["fold3", "4"])
    assert parts_of(joint_name(config.data.validation_split)) == ("fold3", "4")
    assert canonical_split(" Devel ") == "validation"


def test_statistics_are_those_of_the_rows_trained_on(folds: FeatureStore) -> None:
    config = settings(folds, "data.train_split=[fold0,fold2]", "data.validation_split=fold1")
    data = select_data(config, folds)
    rows = [
        row for row, split in enumerate(folds.utterances["split"].to_pylist()) if split in ("fold0", "fold2")
    ]
    assert data.labeled.rows.tolist() == rows
    labels = np.array([folds.utterances["arousal"][row].as_py() for row in rows])
    assert data.targets.outputs.mean.tolist() == pytest.approx([labels.mean()], rel=1e-12)
    assert data.targets.outputs.std.tolist() == pytest.approx([labels.std()], rel=1e-12)
    frames = np.log(np.concatenate([folds.frames(row) for row in rows]).astype(np.float64) + 1e-6)
    np.testing.assert_allclose(data.normalizer.mean, frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(data.normalizer.std, frames.std(axis=0), rtol=1e-5)


def test_the_stores_own_statistics_are_found_again_from_its_frames(tmp_path: Path) -> None:
    utterances = [*many(9), *many(4, "validation", "v")]
    store = make_store(write_corpus(tmp_path / "audio", utterances), tmp_path / "store")
    data = select_data(settings(store), store)
    for found, stored in zip(
        (data.normalizer.mean, data.normalizer.std), store.frame_statistics("log"), strict=True
    ):
        assert np.array_equal(found, stored), "the published numbers move"
    assert data.targets.outputs.mean.tolist() == [store.label_stats["arousal"].mean]
    assert data.targets.outputs.std.tolist() == [store.label_stats["arousal"].std]
    store.normalization_source = "unlabeled"
    again = select_data(settings(store), store)
    np.testing.assert_allclose(again.normalizer.mean, data.normalizer.mean, rtol=1e-6)


def test_a_run_on_folds_scores_them_under_their_names(folds: FeatureStore, tmp_path: Path) -> None:
    config = settings(
        folds,
        "name=folds",
        f"output_dir={tmp_path}",
        "data.train_split=[fold0,fold1]",
        "data.validation_split=fold2",
        "data.test_split=fold3",
    )
    result = train_run(resolve(config))
    assert list(result.summary["ccc"]) == ["fold2", "fold3"]
    assert result.summary["splits"] == {
        "train": ["fold0", "fold1"], "validation": ["fold2"], "test": ["fold3"],
    }  # fmt: skip
    assert load_config(result.folder / "config.yaml") == resolve(config)
    again = evaluate(result.folder / "model", folds.path, ["fold3"], num_resamples=100).splits[0]
    recorded = result.summary["ccc"]["fold3"]["arousal"]
    assert again.attributes["arousal"].estimate.ccc == pytest.approx(recorded, abs=1e-6)
    assert not any("not speaker-independent" in note for note in again.notes)
    seen = evaluate(result.folder / "model", folds.path, ["fold0"], num_resamples=100).splits[0]
    assert not any("not speaker-independent" in note for note in seen.notes)
    assert list(analyse(result.folder).estimates) == ["fold2", "fold3"]


def test_several_validation_splits_choose_as_one(folds: FeatureStore, tmp_path: Path) -> None:
    overrides = (
        "name=joint",
        f"output_dir={tmp_path}",
        "data.train_split=[fold0,fold1]",
        "data.validation_split=[fold2,fold3]",
        "training.calibration=none",
    )
    result = train_run(resolve(settings(folds, *overrides)))
    assert list(result.summary["ccc"]) == ["fold2+fold3"]
    assert result.summary["num_utterances"] == {"fold2+fold3": 12}
    assert list(analyse(result.folder).estimates) == ["fold2+fold3"]
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    best = json.loads(lines[result.summary["best_epoch"] - 1])
    assert best["valid/ccc"] == pytest.approx(result.summary["ccc"]["fold2+fold3"]["arousal"], abs=1e-6)


def test_a_test_split_that_chooses_the_epoch_is_not_scored_as_a_test_too(tmp_path: Path) -> None:
    utterances = [*many(9), *many(4, "validation", "v"), *many(4, "test1", "t"), *many(4, "test2", "w")]
    store = make_store(write_corpus(tmp_path / "audio", utterances), tmp_path / "store")
    data = select_data(settings(store, "data.validation_split=Test 1"), store)
    assert list(data.tests) == ["test2"]
    assert data.validation.rows.tolist() == store.rows("test1").tolist()


def test_a_split_of_a_list_without_labels_is_named(folds: FeatureStore) -> None:
    config = settings(folds, "data.train_split=[fold0,fold9]", "data.validation_split=fold1")
    with pytest.raises(UserError, match=r"data\.train_split=fold9: .* its splits are fold0, fold1"):
        select_data(config, folds)


@pytest.mark.parametrize(
    "labels, problem",
    [
        ([2.0], "arousal is labeled in 1 of 1 utterances"),
        ([3.0, 3.0, 3.0], "every arousal label is 3"),
        ([3.0, None], "every arousal label is 3|arousal is labeled in 1 of 1"),
    ],
)
def test_a_validation_split_that_can_choose_nothing_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, labels: list[float | None], problem: str
) -> None:
    judged = [
        replace(spoken, arousal=label)
        for spoken, label in zip(many(len(labels), "validation", "v"), labels, strict=True)
    ]
    store = make_store(write_corpus(tmp_path / "audio", [*many(6), *judged]), tmp_path / "store")
    check_data(settings(store))
    (warning,) = caplog.messages
    assert (
        warning.startswith("data.validation_split=validation: ") and "cannot choose the best epoch" in warning
    )
    assert any(part in warning for part in problem.split("|"))


def test_a_validation_split_that_varies_is_not_warned_of(
    folds: FeatureStore, caplog: pytest.LogCaptureFixture
) -> None:
    check_data(settings(folds, "data.train_split=fold0", "data.validation_split=fold1"))
    assert not caplog.messages
