"""Attentive statistics pooling against a loop in NumPy, and in every kind of network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_support import small_model, small_network

from raydec.config import load_config
from raydec.errors import UserError
from raydec.inference.prediction import load
from raydec.learning.recipes import fill_recipe
from raydec.learning.stages import draws_by_utterance
from raydec.model.directory import load_model, save_model
from raydec.model.pooling import AttentivePooling

KINDS = ("deepemocluster", "regressor", "autoencoder", "vae")


def chunks(num_utterances: int) -> torch.Tensor:
    return torch.randn(num_utterances * 11, 62, 128, generator=torch.Generator().manual_seed(2))


def test_it_is_the_weighted_mean_and_deviation() -> None:
    generator = torch.Generator().manual_seed(0)
    pooling = AttentivePooling(5)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    sequence = torch.randn(3, 4, 5, generator=generator)
    found = pooling(sequence).detach().numpy()
    hidden, bias, score = (p.detach().double().numpy() for p in pooling.parameters())
    for utterance, row in zip(sequence.double().numpy(), found, strict=True):
        raw = np.array([float(score[0] @ np.tanh(hidden @ chunk + bias)) for chunk in utterance])
        weights = np.exp(raw) / np.exp(raw).sum()
        assert weights.max() > 0.5, "weights that hardly differ show nothing"
        mean = np.average(utterance, axis=0, weights=weights)
        deviation = np.sqrt(np.average((utterance - mean) ** 2, axis=0, weights=weights) + 1e-6)
        np.testing.assert_allclose(row, [*mean, *deviation], atol=1e-5)


def test_equal_chunks_have_no_spread_and_a_finite_gradient() -> None:
    sequence = torch.ones(2, 4, 5, requires_grad=True)
    pooled = AttentivePooling(5)(sequence)
    torch.testing.assert_close(pooled, torch.tensor([[1.0] * 5 + [1e-3] * 5] * 2))
    pooled.sum().backward()
    assert sequence.grad is not None and sequence.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temporal", ["none", "gru", "cnn", "transformer"])
def test_an_utterance_has_one_prediction_that_depends_on_no_other(kind: str, temporal: str) -> None:
    _, network = small_network(2, 1, kind=kind, temporal=temporal, pooling="attentive")
    both = network(chunks(2)).emotion.unflatten(0, (2, 11))
    assert torch.equal(both, both[:, :1].expand_as(both))
    assert not torch.allclose(both[0], both[1])
    torch.testing.assert_close(network(chunks(2)[11:]).emotion, both[1], rtol=1e-4, atol=1e-5)


def test_the_mean_adds_no_weights() -> None:
    _, mean = small_network(2, 1)
    _, attentive = small_network(2, 1, pooling="attentive")
    assert not any(name.startswith("pooling") for name in mean.state_dict())
    added = {name for name, _ in attentive.named_parameters()} - {n for n, _ in mean.named_parameters()}
    assert added == {"pooling.hidden.weight", "pooling.hidden.bias", "pooling.score.weight"}
    branch = {id(parameter) for parameter in attentive.emotion_head_parameters()}
    assert {id(attentive.get_parameter(name)) for name in added} <= branch


def test_a_model_directory_predicts_what_its_network_does(tmp_path: Path) -> None:
    trained = small_model(model={"pooling": "attentive"})
    save_model(trained, tmp_path / "model")
    frames = torch.randn(300, 128, generator=torch.Generator().manual_seed(3)) ** 2 + 0.1
    loaded = load_model(tmp_path / "model")
    for (_, network), (_, old) in zip(loaded.networks, trained.networks, strict=True):
        assert torch.equal(network(chunks(2)).emotion, old(chunks(2)).emotion)
    predictor = load(tmp_path / "model")
    alone = predictor.predict_frames([frames]).scores
    together = predictor.predict_frames([frames * 2, frames]).scores
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-5)
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("recipe", ["reference", "modern"])
def test_recipes_draw_whole_utterances(recipe: str) -> None:
    given = [f"training.recipe={recipe}", "model.pooling=attentive", "data.store=s"]
    config = fill_recipe(load_config(None, given), 100, {"log", "power"})
    assert draws_by_utterance(config) and config.training.batches == "utterances"
    assert config.training.chunks_per_utterance is None


@pytest.mark.parametrize("layer", ["model.pooling=attentive", "model.temporal=gru", "model.temporal=triplet"])
def test_fewer_chunks_than_all_are_refused(layer: str) -> None:
    with pytest.raises(UserError, match=f"chunks_per_utterance=5: {layer} needs all chunks") as e:
        load_config(None, [layer, "training.chunks_per_utterance=5"])
    assert "\n" not in str(e.value)
