"""The converted network against the published system's outputs and intermediate values."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import raydec.inference.prediction as prediction_module
from raydec.console.terminal import run_entry_point
from raydec.convert import main as convert
from raydec.errors import AudioError
from raydec.features.audio import load_audio
from raydec.features.chunking import chunk_utterance
from raydec.features.mel import mel_frames
from raydec.inference.prediction import Predictor, load
from raydec.inference.rows import predict_files
from raydec.model.directory import load_model

pytestmark = pytest.mark.reference

SHORT_NAMES = {"arousal": "act", "dominance": "dom", "valence": "val"}
STEMS = ["e05_62frames", "g01", "g06", "g15"]


@pytest.fixture(scope="module")
def model_dir(reference_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three published checkpoints as one raydec model."""
    folder = tmp_path_factory.mktemp("published") / "model"
    arguments = ["--norm", str(reference_dir / "norm"), "--out", str(folder)]
    for short in SHORT_NAMES.values():
        (path,) = (reference_dir / "weights").glob(f"*_{short.title()}.pth.tar")
        arguments += [f"--{short}", str(path)]
    assert run_entry_point(convert, arguments) == 0
    return folder


@pytest.fixture(scope="module")
def predictor(model_dir: Path) -> Predictor:
    return load(model_dir, "cpu")


@pytest.fixture(scope="module")
def expected(reference_dir: Path) -> dict[str, dict[str, str]]:
    with open(reference_dir / "predictions.csv", newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def predicted(reference_dir: Path, predictor: Predictor) -> dict[str, dict[str, float | str | None]]:
    paths = sorted((reference_dir / "wav").iterdir())
    rows = predict_files(predictor, [str(path) for path in paths]).to_pylist()
    return {path.name: row for path, row in zip(paths, rows, strict=True)}


def test_every_score_is_the_published_one(
    expected: dict[str, dict[str, str]], predicted: dict[str, dict[str, float | str | None]]
) -> None:
    scored = {name for name, row in expected.items() if row["status"] == "ok"}
    assert predicted.keys() == expected.keys() and len(scored) == 20
    for attribute, short in SHORT_NAMES.items():
        differences = {name: predicted[name][attribute] - float(expected[name][short]) for name in scored}
        assert max(map(abs, differences.values())) < 1e-3, (attribute, differences)
        # Without a change of sample rate there is nothing to differ but rounding.
        del differences["e02_stereo44k1.wav"]
        assert max(map(abs, differences.values())) < 1e-5, (attribute, differences)


def test_where_the_original_crashes_there_is_a_prediction_or_a_reason(
    expected: dict[str, dict[str, str]], predicted: dict[str, dict[str, float | str | None]]
) -> None:
    crashed = {name for name, row in expected.items() if row["status"].startswith("CRASH")}
    assert len(crashed) == 5
    reasons = {name: predicted[name]["error"] for name in crashed if predicted[name]["error"]}
    assert reasons == {
        "e01_silence3s.wav": "silent: every sample is zero",
        "e14_empty_crash.wav": "contains no samples",
        "e29_garbage_crash.wav": "cannot be decoded: Format not recognised",
    }
    for name in crashed - reasons.keys():
        assert all(np.isfinite(predicted[name][attribute]) for attribute in SHORT_NAMES), name
    # Two channels of opposite sign: the louder one alone is the recording that both were made from.
    for attribute in SHORT_NAMES:
        gap = predicted["e21_antiphase_crash.wav"][attribute] - predicted["e16_sp_ref.wav"][attribute]
        assert abs(gap) < 1e-3


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("attribute", SHORT_NAMES)
def test_every_stage_gives_the_published_values(
    reference_dir: Path, model_dir: Path, attribute: str, stem: str
) -> None:
    trained = load_model(model_dir)
    published = np.load(reference_dir / "arrays" / f"{stem}.npz", allow_pickle=False)
    normalizer = Predictor(trained, torch.device("cpu"))._normalizer
    frames = mel_frames(load_audio(reference_dir / "wav" / f"{stem}.wav"))
    features = normalizer.normalize(frames)
    chunks = chunk_utterance(features, 11, 62, "as_is")
    assert_close(frames, published["mel"])
    assert_close(features, published["feat"])
    assert_close(chunks, published["chunks"][:, 0])
    ((_, network),) = [item for item in trained.networks if item[0].attributes == (attribute,)]
    found = stages(network, chunks)
    for name, values in found.items():
        assert_close(values, published[f"{SHORT_NAMES[attribute]}_{name}"])


@torch.inference_mode()
def stages(network: torch.nn.Module, chunks: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the network computes on its way, under the names of the reference arrays."""
    output = network(chunks)
    encoded = network.encoder(chunks)
    return {
        "flat1024": network.encoder.feature_map(chunks),
        "cnn_out256": encoded,
        "kmeans_feat256_prerelu": network.embed(chunks),
        "classifier_hidden256": output.embedding.relu(),
        "logits": output.cluster_logits,
        "reg_hidden256": network.emotion_head.hidden(encoded).relu(),
        "attr_chunk": output.emotion,
    }


def assert_close(found: torch.Tensor, published: np.ndarray) -> None:
    """Every element differs by less than 1e-4 of the array's largest magnitude."""
    assert found.shape == published.shape
    assert np.abs(found.numpy() - published).max() < 1e-4 * np.abs(published).max()


@pytest.mark.parametrize("per_pass", [1, 64])
def test_batch_size_and_order_change_no_prediction(
    reference_dir: Path,
    predictor: Predictor,
    predicted: dict[str, dict[str, float | str | None]],
    per_pass: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(prediction_module._UTTERANCES_PER_PASS, "cpu", per_pass)
    names = sorted(name for name, row in predicted.items() if row["error"] is None)
    order = np.random.default_rng(per_pass).permutation(len(names))
    shuffled = [names[i] for i in order]
    rows = predict_files(predictor, [str(reference_dir / "wav" / name) for name in shuffled]).to_pylist()
    for name, row in zip(shuffled, rows, strict=True):
        for attribute in SHORT_NAMES:
            assert row[attribute] == pytest.approx(predicted[name][attribute], abs=1e-5)
        assert row["cluster"] == predicted[name]["cluster"]


def test_one_file_at_a_time_predicts_the_same(
    reference_dir: Path, predictor: Predictor, predicted: dict[str, dict[str, float | str | None]]
) -> None:
    for name in ("g15.wav", "e07_61frames.wav", "e02_stereo44k1.wav"):
        alone = predictor.predict(reference_dir / "wav" / name)
        assert dict(alone) == pytest.approx({a: predicted[name][a] for a in SHORT_NAMES}, abs=1e-5)
    with pytest.raises(AudioError, match=r"e01_silence3s\.wav: silent"):
        predictor.predict(reference_dir / "wav" / "e01_silence3s.wav")
