from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpus_support import make_store, many, write_corpus
from model_support import small_model, speech

import raydec.inference.prediction as prediction_module
import raydec.inference.rows as files_module
from raydec.errors import UserError
from raydec.features.chunking import chunk_utterance
from raydec.features.kaiser import resample_kaiser
from raydec.features.mel import mel_frames
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.normalization import FrameNormalizer
from raydec.inference.prediction import Predictor, load
from raydec.inference.rows import RowOptions, predict_files
from raydec.model.directory import ChunkFormat, TrainedModel, save_model

CPU = torch.device("cpu")


def utterances() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    lengths = [1, 30, 53, 57, 61, 62, 71, 72, 200, 300, 57]
    return [torch.rand(length, 128, generator=generator) for length in lengths]


def by_hand(trained: TrainedModel, frames: torch.Tensor) -> tuple[list[float], int]:
    """Scores and cluster of one utterance, step by step."""
    form = trained.chunks
    normalizer = FrameNormalizer(trained.feature_mean, trained.feature_std, form.scale, form.clip)
    chunks = chunk_utterance(normalizer.normalize(frames), form.num_chunks, form.chunk_frames, form.short)
    scores: list[float] = []
    for spec, network in trained.networks:
        chunk_scores = network(chunks).emotion.detach().double().numpy()
        scores += (chunk_scores.mean(0) * np.array(spec.label_std) + np.array(spec.label_mean)).tolist()
    output = trained.networks[0][1](chunks)
    if trained.centroids is None:
        nearest = output.cluster_logits.argmax(1).tolist()
    else:
        embedding = output.embedding.detach().numpy()
        nearest = np.square(embedding[:, None] - trained.centroids[None]).sum(-1).argmin(1).tolist()
    return scores, max(sorted(set(nearest)), key=nearest.count)


@pytest.mark.parametrize("short", ["tile", "as_is"])
@pytest.mark.parametrize("centroids", [True, False])
def test_predictions_equal_the_steps_done_by_hand(short: str, centroids: bool) -> None:
    trained = small_model(centroids, chunks=ChunkFormat("log", 3.0, 11, 62, short))
    result = Predictor(trained, CPU).predict_frames(utterances())
    assert result.clusters is not None
    for i, frames in enumerate(utterances()):
        scores, cluster = by_hand(trained, frames)
        np.testing.assert_allclose(result.scores[i], scores, atol=1e-5)
        assert result.clusters[i] == cluster


@pytest.mark.parametrize("per_pass", [1, 4, 64])
def test_batch_size_and_order_change_nothing(per_pass: int, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(small_model(chunks=ChunkFormat("log", 3.0, 11, 62, "as_is")), CPU)
    alone = np.concatenate([predictor.predict_frames([frames]).scores for frames in utterances()])
    monkeypatch.setitem(prediction_module._UTTERANCES_PER_PASS, "cpu", per_pass)
    order = np.random.default_rng(1).permutation(len(utterances()))
    shuffled = predictor.predict_frames([utterances()[i] for i in order])
    np.testing.assert_allclose(shuffled.scores, alone[order], atol=1e-5)


def test_nothing_to_predict() -> None:
    result = Predictor(small_model(), CPU).predict_frames([])
    assert result.scores.shape == (0, 3) and result.clusters is not None and result.clusters.shape == (0,)


def test_models_without_clusters_name_none(tmp_path: Path) -> None:
    predictor = Predictor(small_model(centroids=False, model={"kind": "regressor"}), CPU)
    assert predictor.predict_frames(utterances()[:1]).clusters is None
    soundfile.write(tmp_path / "a.wav", speech(), 16_000)
    assert predictor.predict(tmp_path / "a.wav").cluster is None
    assert predict_files(predictor, [str(tmp_path / "a.wav")])["cluster"].null_count == 1
    with_centroids = Predictor(small_model(model={"kind": "regressor"}), CPU)
    assert with_centroids.predict_frames(utterances()[:1]).clusters is not None


def test_a_file_and_its_samples_predict_the_same(tmp_path: Path) -> None:
    predictor = Predictor(small_model(), CPU)
    soundfile.write(tmp_path / "a.wav", speech(rate=44_100), 44_100, subtype="FLOAT")
    of_file = predictor.predict(tmp_path / "a.wav")
    of_samples = predictor.predict(speech(rate=44_100), 44_100)
    assert dict(of_file) == pytest.approx(dict(of_samples), abs=1e-6)
    assert list(of_file) == ["arousal", "valence", "dominance"] and len(of_file) == 3
    assert of_file["valence"] == of_file.scores["valence"]


def test_the_resampler_is_the_models_own() -> None:
    samples = speech(rate=44_100)
    kaiser = Predictor(small_model(resampler="kaiser"), CPU)
    expected = kaiser.predict_frames([mel_frames(resample_kaiser(samples, 44_100, 16_000))]).scores[0]
    np.testing.assert_allclose(list(kaiser.predict(samples, 44_100).scores.values()), expected, atol=1e-9)
    assert dict(Predictor(small_model(), CPU).predict(samples, 44_100)) != dict(
        kaiser.predict(samples, 44_100)
    )


def test_samples_without_a_rate_are_refused() -> None:
    with pytest.raises(UserError, match="pass sample_rate in Hz"):
        Predictor(small_model(), CPU).predict(speech())


def test_loading(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "m")
    expected = Predictor(small_model(), CPU).predict_frames(utterances()).scores
    np.testing.assert_array_equal(load(tmp_path / "m", "cpu").predict_frames(utterances()).scores, expected)
    with pytest.raises(UserError, match="device 'warp' cannot be used"):
        load(tmp_path / "m", "warp")
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "absent")


def test_a_store_predicts_what_its_files_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_module, "_UTTERANCES_IN_MEMORY", 2)
    corpus = write_corpus(tmp_path / "corpus", many(5))
    store = make_store(corpus, tmp_path / "store")
    predictor = Predictor(small_model(), CPU)
    rows = np.array([4, 0, 2])
    result = predictor.predict_store(store, rows)
    files = [store.utterances["path"][int(row)].as_py() for row in rows]
    of_files = predict_files(predictor, files)
    for i, attribute in enumerate(predictor.attributes):
        # The store keeps float16 frames.
        np.testing.assert_allclose(result.scores[:, i], of_files[attribute].to_numpy(), atol=5e-3)
    assert result.clusters is not None and result.clusters.tolist() == of_files["cluster"].to_pylist()
    assert predictor.predict_store(store, rows[:0]).scores.shape == (0, 3)
    other = Predictor(small_model(front_end=MelFrontEnd(hop_length=160)), CPU)
    with pytest.raises(UserError, match="other features than the model's: hop_length 256 instead of 160"):
        other.predict_store(store, rows)


def test_files_become_rows_in_order_with_reasons_for_the_bad_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_BYTES_IN_MEMORY", 1)
    for name, seconds in (("a", 2.0), ("b", 0.02), ("d", 4.0)):
        soundfile.write(tmp_path / f"{name}.wav", speech(seconds), 16_000)
    (tmp_path / "c.wav").write_bytes(b"garbage")
    files = [str(tmp_path / f"{name}.wav") for name in "abcde"]
    predictor = Predictor(small_model(), CPU)
    rows = predict_files(predictor, files).to_pylist()
    assert [row["file"] for row in rows] == files
    assert [row["end"] for row in rows] == [2.0, 0.02, None, 4.0, None]
    for i in (0, 1, 3):
        assert rows[i]["error"] is None
        expected = predictor.predict(files[i])
        assert {name: rows[i][name] for name in expected} == pytest.approx(dict(expected), abs=1e-5)
        assert rows[i]["cluster"] == expected.cluster
    assert "not audio" in rows[2]["error"] and rows[4]["error"] == "the file does not exist"
    assert rows[2]["arousal"] is None and rows[2]["cluster"] is None


def test_windows_are_predicted_one_by_one(tmp_path: Path) -> None:
    samples = np.concatenate([speech(3.0), np.zeros(32_000, np.float32), speech(1.2)])
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    predictor = Predictor(small_model(), CPU)
    rows = predict_files(predictor, [str(tmp_path / "a.wav")], RowOptions(window_s=1.0)).to_pylist()
    assert [(row["start"], row["end"]) for row in rows] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6.2)]
    assert [row["error"] is None for row in rows] == [True, True, True, False, False, True]
    assert rows[3]["error"] == "silent: every sample is zero" and rows[3]["arousal"] is None
    expected = predictor.predict(samples[16_000:32_000], 16_000)
    assert rows[1]["arousal"] == pytest.approx(expected["arousal"], abs=1e-6)
