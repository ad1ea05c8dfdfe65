"""Training that starts from a model: what is taken over, what is fresh, and whose normalisation is used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from report_support import TINY
from stores import make_store

from raydec.config import Config, load_config
from raydec.errors import UserError
from raydec.experiment import resolve, train_run
from raydec.learning.clusterer import LocalClusterer
from raydec.learning.training import NullRecorder, Training
from raydec.learning.worker import LocalWorker
from raydec.model.directory import load_model
from raydec.runs.training_loop import open_data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores of different speech, and a model trained on the first."""
    folder = tmp_path_factory.mktemp("start")
    make_store(folder / "a", num_unlabeled=0)
    make_store(folder / "b", num_train=6, num_unlabeled=0)
    places = (f"data.store={folder}/a/store", f"output_dir={folder}", "name=first", "training.epochs=1")
    train_run(resolve(load_config(None, [*TINY, *places])))
    return folder


def settings(place: Path, *overrides: str) -> Config:
    common = (
        f"data.store={place}/b/store",
        f"output_dir={place}",
        f"model.init={place}/first/model",
        "training.epochs=1",
    )
    return resolve(load_config(None, [*TINY, *common, *overrides]))


def beginning(config: Config) -> Training:
    """Training before its first step."""
    _, data = open_data(config)
    worker = LocalWorker()
    return Training(config, data, worker, LocalClusterer(worker, config.clustering), NullRecorder())


def parts(place: Path, training: Training) -> tuple[set[str], set[str]]:
    """Parts whose weights equal the model's, and parts where they do not."""
    theirs = load_model(place / "first" / "model").networks[0][1].state_dict()
    equal, other = set(), set()
    for name, tensor in training.network.state_dict().items():
        same = name in theirs and theirs[name].shape == tensor.shape and torch.equal(theirs[name], tensor)
        (equal if same else other).add(name.split(".")[0])
    return equal, other


def test_everything_that_fits_is_taken_over_but_for_the_names_of_clusters(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = beginning(settings(place))
    equal, other = parts(place, training)
    assert {"encoder", "emotion_head", "cluster_head"} <= equal
    assert other == {"cluster_head"}
    assert not caplog.messages
    random = beginning(settings(place, "model.init=null"))
    assert {"encoder", "emotion_head"} <= parts(place, random)[1], "the comparison shows nothing"


@pytest.mark.parametrize(
    "override, fresh",
    [
        ("data.attributes=[valence]", "emotion_head"),
        ("data.attributes=[valence,arousal,dominance]", "emotion_head"),
        ("model.temporal=gru", "temporal"),
    ],
)
def test_heads_that_do_not_fit_are_fresh_by_name(
    place: Path, caplog: pytest.LogCaptureFixture, override: str, fresh: str
) -> None:
    training = beginning(settings(place, override))
    equal, _ = parts(place, training)
    assert "encoder" in equal and fresh not in equal
    (said,) = caplog.messages
    assert said.endswith(f"do not fit start anew: {fresh}")


@pytest.mark.parametrize(
    "override, problem",
    [
        ("model.channels=[6,4,4,4,4,4,4]", r"another trunk: set model\.channels=\[4,4,4,4,4,4,4\]"),
        ("features.scale=power", r"was trained with features\.scale=log, not power; set features\.scale=log"),
        ("model.init=nowhere", "nowhere is not a model directory"),
    ],
)
def test_a_model_that_cannot_be_started_from_is_refused(place: Path, override: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        beginning(settings(place, override))


def test_normalisation_is_the_models_or_refitted(place: Path) -> None:
    model = load_model(place / "first" / "model")
    kept = beginning(settings(place))._data
    np.testing.assert_array_equal(kept.normalizer.mean, model.feature_mean)
    assert kept.targets.outputs.label_mean == model.networks[0][0].label_mean
    own = beginning(settings(place, "model.init=null"))._data
    refitted = beginning(settings(place, "model.init_normalization=refit"))._data
    np.testing.assert_array_equal(refitted.normalizer.mean, own.normalizer.mean)
    assert refitted.targets.outputs == own.targets.outputs
    assert own.targets.outputs.label_mean != model.networks[0][0].label_mean
    assert not np.array_equal(own.normalizer.mean, model.feature_mean)


def test_a_run_from_a_model_predicts_in_the_scale_it_was_trained_in(place: Path) -> None:
    config = settings(place, "name=second")
    folder = train_run(config).folder
    trained = load_model(folder / "model")
    first = load_model(place / "first" / "model")
    assert trained.networks[0][0].label_mean == first.networks[0][0].label_mean
    assert str(place) not in (folder / "model" / "config.json").read_text()
    assert load_config(folder / "config.yaml").model.init == f"{place}/first/model"
