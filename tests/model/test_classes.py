"""A network that predicts classes: its model directory, card, ONNX file and predictions agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_support import small_classifier, small_model, speech

from raydec.errors import UserError
from raydec.features.chunking import chunk_utterance
from raydec.features.normalization import FrameNormalizer
from raydec.inference.prediction import Predictor
from raydec.inference.rows import RowOptions, predict_files
from raydec.model.directory import load_model, save_model
from raydec.model.outputs import Outputs
from raydec.model.trained import TrainedModel


def by_hand(trained: TrainedModel) -> np.ndarray:
    """Arousal and class probabilities of ``speech()``, each the mean over chunks."""
    ((spec, network),) = trained.networks
    normalizer = FrameNormalizer(trained.feature_mean, trained.feature_std, "log", 3.0)
    frames = normalizer.normalize(trained.front_end.frames(speech()))
    with torch.no_grad():
        raw = network(chunk_utterance(frames, 11, 62, "tile")).emotion.double().numpy()
    num_attributes = len(spec.attributes)
    exponentials = np.exp(raw[:, num_attributes:])
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    numbers = raw[:, :num_attributes] * np.array(spec.label_std) + np.array(spec.label_mean)
    return np.concatenate([numbers, probabilities], axis=1).mean(0)


@pytest.mark.parametrize("attributes", [("arousal",), ()])
def test_predictions_are_the_mean_probabilities_of_chunks(attributes: tuple[str, ...]) -> None:
    trained = small_classifier(attributes)
    predicted = Predictor(trained, torch.device("cpu")).predict(speech(), 16_000)
    names = [*attributes, "emotion_A", "emotion_H", "emotion_N"]
    assert list(predicted) == names
    np.testing.assert_allclose([predicted[name] for name in names], by_hand(trained), rtol=1e-5)
    shares = predicted.probabilities["emotion"]
    assert sum(shares.values()) == pytest.approx(1)
    assert predicted.classes == {"emotion": max(shares, key=shares.get)}


def test_attributes_of_all_networks_come_before_classes() -> None:
    """The classes stand in the middle of what two networks give."""
    both = small_classifier()
    other = small_model().networks[1]
    both.networks = [*both.networks, other]
    alone = Predictor(small_classifier(), torch.device("cpu")).predict(speech(), 16_000)
    dominance = Predictor(small_model(networks=[other], centroids=False), torch.device("cpu"))
    together = Predictor(both, torch.device("cpu")).predict(speech(), 16_000)
    assert list(together) == ["arousal", "dominance", "emotion_A", "emotion_H", "emotion_N"]
    assert together.scores == alone.scores | dominance.predict(speech(), 16_000).scores


def test_a_model_directory_keeps_classes_and_says_how_good_they_are(tmp_path: Path) -> None:
    scores = {"arousal": 0.5, "f1_emotion": 0.61, "f1_emotion_low": 0.52, "f1_emotion_high": 0.7}
    trained = small_classifier(extra={"scores": {"test": scores}})
    save_model(trained, tmp_path / "model")
    read = load_model(tmp_path / "model")
    assert read.networks[0][0] == trained.networks[0][0]
    assert read.outputs.names == ("arousal", "emotion_A", "emotion_H", "emotion_N")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Predicts arousal, emotion (A, H, N) of recorded speech" in card
    assert "| test | 0.610 (0.520 to 0.700) | – (– to –) |" in card


def test_a_model_without_classes_is_written_as_before(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert all("classes" not in network for network in config["networks"])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"emotion": ["A", "A", "N"]}, "lists a class twice"),
        ({"emotion": ["A"]}, "networks.0.classes.emotion"),
        ({"arousal": ["A", "H", "N"]}, "predicted twice: arousal, arousal"),
    ],
)
def test_classes_that_make_no_sense_are_refused(tmp_path: Path, classes: dict, message: str) -> None:
    save_model(small_classifier(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["networks"][0]["classes"] = classes
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "model")


def test_rows_have_the_class_and_all_probabilities_and_only_attributes_are_clipped(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", speech(), 16_000)
    trained = small_classifier()
    predictor = Predictor(trained, torch.device("cpu"))
    (row,) = predict_files(predictor, [str(tmp_path / "a.wav")], RowOptions(clip=(10.0, 11.0))).to_pylist()
    assert list(row) == [
        *("file", "start", "end", "arousal"),
        *("emotion", "emotion_A", "emotion_H", "emotion_N", "cluster", "warning", "error"),
    ]
    wanted = by_hand(trained)
    assert row["arousal"] == np.clip(wanted[0], 10, 11)
    np.testing.assert_allclose([row[f"emotion_{name}"] for name in "AHN"], wanted[1:], atol=1e-4)
    assert row["emotion"] == "AHN"[wanted[1:].argmax()]


@pytest.mark.parametrize("attributes", [("arousal", "valence"), ()])
def test_onnx_gives_the_same_probabilities(attributes: tuple[str, ...], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from raydec.model.onnx_export import export_onnx

    trained = small_classifier(attributes)
    written = export_onnx(trained, tmp_path / "model.onnx")
    scores = {"scores": len(attributes)} if attributes else {}
    assert written.outputs == scores | {"emotion_probabilities": 3, "embedding": 16, "cluster_logits": 5}
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == {"emotion": ["A", "H", "N"]}
    chunks = torch.randn(5, 62, 128, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(["emotion_probabilities"], {"chunks": chunks.numpy()})
    with torch.no_grad():
        logits = trained.networks[0][1](chunks).emotion[:, len(attributes) :].double().numpy()
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_outputs_of_two_networks_merge_numbers_first() -> None:
    first = Outputs(("arousal",), (1.0,), (2.0,), {"emotion": ("A", "N")})
    merged = first.merge(Outputs(("age",), (40.0,), (10.0,), {"gender": ("f", "m")}))
    assert merged.names == ("arousal", "age", "emotion_A", "emotion_N", "gender_f", "gender_m")
    assert merged.groups == {"emotion": slice(2, 4), "gender": slice(4, 6)}
    np.testing.assert_array_equal(merged.in_label_scale(np.full((1, 6), 0.5))[0], [2, 45, 0.5, 0.5, 0.5, 0.5])
    assert dataclasses.replace(first, classes={}).names == ("arousal",)
