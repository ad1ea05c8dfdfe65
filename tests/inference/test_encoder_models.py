"""Models on features of a pretrained encoder: trained, loaded, predicted with, bundled and exported."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus_support import many, voice, write_corpus
from encoder_support import tiny_encoder

from raydec import cli
from raydec.config import load_config
from raydec.errors import UserError
from raydec.experiment import resolve, train_run
from raydec.features.encoder_front_end import encoder_front_end
from raydec.features.store import FeatureStore
from raydec.inference.prediction import load
from raydec.model.directory import load_model
from raydec.model.encoder_head import EncoderHead
from raydec.preparation import prepare_store

SETTINGS = (
    "data.attributes=[arousal]",
    "model.embedding_dim=16",
    "model.latent_dim=8",
    "clustering.num_clusters=3",
    "training.batch_utterances=4",
    "training.recipe=modern",
    "training.epochs=2",
    "ray.num_workers=0",
    "ray.cpus_per_worker=1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its encoder, stores of chunk statistics and of whole states, and a model."""
    folder = tmp_path_factory.mktemp("encoder-models")
    tiny_encoder(folder / "encoder", "wavlm")
    spoken = [*many(10), *many(5, "validation", "v"), *many(4, "test1", "t"), *many(3, "unlabeled", "x")]
    corpus = write_corpus(folder / "audio", spoken)
    for name, pooled in (("store", True), ("frames", False)):
        front_end = encoder_front_end(str(folder / "encoder"), "all", pooled=pooled)
        prepare_store(corpus, folder / name, num_workers=0, quiet=True, front_end=front_end)
    train(folder, "store", "whole")
    return folder


def train(folder: Path, store: str, name: str, *settings: str) -> Path:
    given = [*SETTINGS, f"data.store={folder / store}", f"output_dir={folder / 'runs'}", f"name={name}"]
    train_run(resolve(load_config(None, [*given, *settings])))
    return folder / "runs" / name / "model"


@pytest.mark.parametrize("kind", ["regressor", "autoencoder", "vae"])
def test_baselines_train_on_such_a_store(folder: Path, kind: str) -> None:
    assert train(folder, "store", kind, f"model.kind={kind}").is_dir()


def test_whole_states_train_too_and_give_other_chunks(folder: Path) -> None:
    model = train(folder, "frames", "frames", "features.chunk_frames=25", "features.num_chunks=5")
    assert load_model(model).chunks.chunk_frames == 25


def test_a_config_is_refused_that_asks_for_other_chunks_than_are_stored(folder: Path) -> None:
    for setting, message in (
        ("features.num_chunks=5", "statistics of 11 chunks"),
        ("features.chunk_frames=62", "one frame each"),
        ("features.scale=log", "only has plain"),
    ):
        with pytest.raises(UserError, match=message):
            train(folder, "store", "refused", setting)


def test_files_are_predicted_as_their_rows_of_the_store_are(folder: Path) -> None:
    predictor = load(folder / "runs/whole/model", encoder=folder / "encoder")
    store = FeatureStore.open(folder / "store", predictor.trained.front_end)
    rows = store.rows("test1")
    from_store = predictor.predict_store(store, rows).scores[:, 0]
    paths = store.utterances.take(rows)["path"].to_pylist()
    # Stored statistics are float16.
    from_files = [predictor.predict(path)["arousal"] for path in paths]
    np.testing.assert_allclose(from_files, from_store, atol=2e-3)
    assert np.std(from_store) > 0


def test_the_command_needs_the_encoder_until_it_is_bundled(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "out.csv"
    shutil.copytree(folder / "runs/whole/model", model)
    command = ["predict", str(model), str(folder / "audio" / "t000.wav"), "--out", str(out)]
    assert cli.main(command) == 2
    assert "name its folder with --encoder DIR" in capsys.readouterr().err
    other = tiny_encoder(tmp_path / "other", "wavlm", seed=5)
    assert cli.main([*command, "--encoder", str(other)]) == 2
    assert "checksum" in capsys.readouterr().err
    assert cli.main([*command, "--encoder", str(folder / "encoder")]) == 0
    alone = list(csv.DictReader(out.open()))
    assert cli.main(["export", str(model), "--bundle", "--encoder", str(folder / "encoder")]) == 0
    assert cli.main([*command, "--restart"]) == 0
    assert list(csv.DictReader(out.open())) == alone and float(alone[0]["arousal"])


def test_heads_are_exported(folder: Path, tmp_path: Path) -> None:
    import onnxruntime

    assert cli.main(["export", str(folder / "runs/whole/model"), "--onnx", str(tmp_path / "m.onnx")]) == 0
    trained = load_model(folder / "runs/whole/model")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    chunks = np.random.default_rng(0).normal(size=(4, 1, trained.front_end.width)).astype(np.float32)
    (scores,) = session.run(["scores"], {"chunks": chunks})
    spec, network = trained.networks[0]
    expected = network(torch.from_numpy(chunks)).emotion.detach().numpy() * spec.label_std + spec.label_mean
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_layers_are_mixed_by_learned_weights() -> None:
    trunk = EncoderHead(3, 4, 6, 0.0, pooled=True, chunk_frames=1)
    chunks = torch.randn(5, 1, 3 * 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trunk.layer_logits.copy_(torch.tensor([0.0, 1.0, -2.0]))  # type: ignore[union-attr]
    weights = np.exp([0.0, 1.0, -2.0]) / np.exp([0.0, 1.0, -2.0]).sum()
    np.testing.assert_allclose(trunk.layer_weights().detach(), weights, rtol=1e-6)
    mixed = np.einsum("l,cls->cs", weights, chunks.numpy().reshape(5, 3, 8))
    weight, bias = trunk.out.weight.detach().numpy(), trunk.out.bias.detach().numpy()
    expected = np.maximum(mixed @ weight.T + bias, 0)
    np.testing.assert_allclose(trunk(chunks).detach(), expected, atol=1e-5)


def test_whole_states_and_their_statistics_are_the_same_to_the_head() -> None:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(5, 20, 3 * 4, generator=generator)
    whole = EncoderHead(3, 4, 6, 0.0, pooled=False, chunk_frames=20)
    pooled = EncoderHead(3, 4, 6, 0.0, pooled=True, chunk_frames=1)
    pooled.load_state_dict(whole.state_dict())
    by_layer = states.view(5, 20, 3, 4)
    statistics = torch.cat([by_layer.mean(1), by_layer.std(1, unbiased=False)], 2).flatten(1)
    torch.testing.assert_close(whole(states), pooled(statistics[:, None]), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def attentive(folder: Path) -> Path:
    """A model that pools an utterance's chunks by attention."""
    return train(folder, "store", "attentive", "model.pooling=attentive")


def test_attentive_pooling_scores_in_evaluation_as_in_training(
    folder: Path, attentive: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in (attentive.parent / "metrics.jsonl").read_text().splitlines()]
    best = json.loads((attentive.parent / "summary.json").read_text())["best_epoch"]
    trained = next(line["valid/ccc_arousal"] for line in lines if line["epoch"] == best)
    out = tmp_path / "metrics.json"
    command = ["evaluate", str(attentive), str(folder / "store"), "--split", "validation", "--out", str(out)]
    assert cli.main(command) == 0
    assert json.loads(out.read_text())["ccc"]["validation"]["arousal"] == pytest.approx(trained, abs=1e-4)
    assert trained != 0


def test_attentive_pooling_sees_a_window_as_a_recording_of_its_own(
    folder: Path, attentive: Path, tmp_path: Path
) -> None:
    source = folder / "audio" / "long.wav"
    soundfile.write(source, voice(3, 2.5), 16_000)
    soundfile.write(folder / "audio" / "part.wav", soundfile.read(source)[0][16_000:32_000], 16_000)
    out = tmp_path / "windows.csv"
    command = [
        "predict",
        str(attentive),
        str(source),
        "--encoder",
        str(folder / "encoder"),
        "--out",
        str(out),
    ]
    assert cli.main([*command, "--windows", "1"]) == 0
    rows = list(csv.DictReader(out.open()))
    predictor = load(attentive, encoder=folder / "encoder")
    alone = predictor.predict(folder / "audio" / "part.wav")["arousal"]
    assert float(rows[1]["arousal"]) == pytest.approx(alone, abs=1e-3)
    assert len({row["arousal"] for row in rows}) == len(rows) > 1


def test_attentive_pooling_on_features_is_exported(attentive: Path, tmp_path: Path) -> None:
    import onnxruntime

    assert cli.main(["export", str(attentive), "--onnx", str(tmp_path / "m.onnx")]) == 0
    saved = load_model(attentive)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    spec, network = saved.networks[0]
    for count in (11, 33):
        noise = np.random.default_rng(count).normal(size=(count, 1, saved.front_end.width))
        chunks = noise.astype(np.float32)
        (scores,) = session.run(["scores"], {"chunks": chunks})
        emotion = network(torch.from_numpy(chunks)).emotion.detach().numpy()
        np.testing.assert_allclose(scores, emotion * spec.label_std + spec.label_mean, atol=1e-4)
