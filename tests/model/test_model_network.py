import math

import pytest
import torch
from corpus_support import mel_format
from torch import nn

from raydec.config import ModelConfig
from raydec.features.mel_front_end import MelFrontEnd
from raydec.model.assembly import build_network
from raydec.model.mel_cnn import MelCnn, feature_map_sizes
from raydec.model.network import DeepEmoCluster, Network
from raydec.model.noise import Noise

SMALL = (4, 4, 6, 6, 8, 8, 8)


def small_network(num_clusters: int = 5, num_attributes: int = 2, **model: object) -> Network:
    settings = {"channels": SMALL, "embedding_dim": 16, "latent_dim": 12, **model}
    network = build_network(
        ModelConfig.model_validate(settings),
        MelFrontEnd(),
        mel_format(num_chunks=6),
        num_attributes,
        num_clusters,
    )
    network.initialize(torch.Generator().manual_seed(1))
    return network


def chunks(num_utterances: int = 2, num_chunks: int = 6, frames: int = 62) -> torch.Tensor:
    return torch.randn(num_utterances * num_chunks, frames, 128, generator=torch.Generator().manual_seed(2))


def published_size(num_clusters: int) -> DeepEmoCluster:
    network = build_network(ModelConfig(), MelFrontEnd(), mel_format(), 1, num_clusters)
    assert isinstance(network, DeepEmoCluster)
    return network


@pytest.mark.parametrize(("num_clusters", "num_parameters"), [(10, 831_979), (30, 837_119)])
def test_size_is_the_published_one(num_clusters: int, num_parameters: int) -> None:
    network = published_size(num_clusters)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == num_parameters
    assert len(network.state_dict()) == 59


def test_initial_weights_have_the_published_distribution() -> None:
    network = published_size(30)
    network.initialize(torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            expected, weight = math.sqrt(2 / (9 * module.out_channels)), module.weight
        elif isinstance(module, nn.Linear):
            expected, weight = 0.01, module.weight
        else:
            continue
        assert weight.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean().item()) < 4 * expected / math.sqrt(weight.numel())
        assert not module.bias.any()


def test_initialisation_depends_on_the_generator_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = small_network(temporal="gru"), small_network(temporal="gru")
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_initialisation_forgets_training() -> None:
    network = small_network()
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()(chunks())
    assert not torch.equal(network.encoder.convolutions[1].running_mean, torch.zeros(4))
    network.initialize(torch.Generator().manual_seed(1))
    assert all(torch.equal(value, fresh[name]) for name, value in network.state_dict().items())


def test_feature_map_of_the_published_chunk() -> None:
    assert feature_map_sizes(62, 128) == [
        (62, 128), (62, 128), (62, 128), (31, 64), (16, 32), (8, 16), (4, 8), (2, 4)
    ]  # fmt: skip


@pytest.mark.parametrize(("frames", "flat"), [(53, 64), (62, 64), (64, 64), (65, 96), (80, 96)])
def test_encoder_takes_every_configurable_chunk_length(frames: int, flat: int) -> None:
    encoder = MelCnn(SMALL, 16, 0.5, chunk_frames=frames)
    assert encoder.cnn_out.in_features == flat
    assert encoder(chunks(frames=frames)).shape == (12, 16)


def test_encoder_takes_shorter_chunks_with_the_same_rows_only() -> None:
    encoder = MelCnn(SMALL, 16, 0.5, chunk_frames=62)
    assert encoder(chunks(frames=53)).shape == (12, 16)
    with pytest.raises(AssertionError, match="65 frames x 128 bands give 96 features"):
        encoder(chunks(frames=65))


def test_encoder_gives_the_same_in_either_memory_format() -> None:
    encoder = MelCnn(SMALL, 16, 0.5).eval()
    plain = encoder(chunks())
    torch.testing.assert_close(encoder.to(memory_format=torch.channels_last)(chunks()), plain)


def test_output_and_embedding() -> None:
    network = small_network().eval()
    output = network(chunks())
    assert output.emotion.shape == (12, 2)
    assert output.cluster_logits is not None and output.cluster_logits.shape == (12, 5)
    assert torch.equal(network.embed(chunks()), output.embedding)
    assert network.embedding_dim == 16
    assert output.embedding.min() < 0, "embeddings are taken before the ReLU"
    top = network.cluster_head.top(torch.relu(output.embedding))
    assert torch.equal(top, output.cluster_logits)
    assert output.sequence is None and output.reconstruction is None


def test_parameter_groups_split_the_network() -> None:
    network = small_network()
    body, top = network.body_parameters(), network.top_layer_parameters()
    assert {id(p) for p in top} == {id(p) for p in network.cluster_head.top.parameters()}
    assert {id(p) for p in body + top} == {id(p) for p in network.parameters()}
    assert len(body) + len(top) == len(list(network.parameters()))
    names = {
        name for name, p in network.named_parameters() for q in network.emotion_head_parameters() if p is q
    }
    assert names == {
        f"emotion_head.{part}.{kind}" for part in ("hidden", "top") for kind in ("weight", "bias")
    }


def test_cluster_head_reset() -> None:
    network = small_network()
    state = torch.get_rng_state()
    network.reset_cluster_head(4000, torch.Generator().manual_seed(3))
    top = network.cluster_head.top
    assert torch.equal(torch.get_rng_state(), state)
    assert top.weight.shape == (4000, 16) and not top.bias.any()
    assert top.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert network(chunks()).cluster_logits.shape == (12, 4000)


@pytest.mark.parametrize("temporal", ["none", "gru", "cnn", "transformer", "triplet"])
@pytest.mark.parametrize("kind", ["deepemocluster", "regressor", "autoencoder", "vae"])
def test_noise_depends_on_the_place_in_the_global_batch(kind: str, temporal: str) -> None:
    network = small_network(kind=kind, temporal=temporal).eval()
    x = chunks(5)

    def run(start: int, stop: int) -> torch.Tensor:
        noise = Noise(torch.Generator().manual_seed(9), 5, start, stop)
        return network(x[6 * start : 6 * stop], noise).emotion

    whole = run(0, 5)
    torch.testing.assert_close(torch.cat([run(0, 2), run(2, 2), run(2, 5)]), whole, rtol=1e-5, atol=1e-7)
    still = network(x).emotion
    assert torch.equal(still, network(x).emotion)
    assert torch.equal(whole, still) == (temporal == "triplet" and kind == "deepemocluster")


@pytest.mark.parametrize("temporal", ["none", "gru", "cnn", "transformer", "triplet"])
@pytest.mark.parametrize("kind", ["deepemocluster", "regressor", "autoencoder", "vae"])
def test_a_worker_without_rows_runs_forward_and_backward(kind: str, temporal: str) -> None:
    network = small_network(kind=kind, temporal=temporal).train()
    output = network(chunks(0), Noise(torch.Generator().manual_seed(9), 5, 2, 2))
    assert output.emotion.shape == (0, 2)
    output.emotion.sum().backward()
    assert network.encoder.cnn_out.weight.grad is not None


def test_no_module_draws_dropout_by_itself() -> None:
    for temporal in ("gru", "cnn", "transformer"):
        modules = small_network(temporal=temporal).modules()
        for module in modules:
            assert not isinstance(module, nn.Dropout)
            assert not isinstance(module, nn.GRU) or module.dropout == 0


def test_networks_with_a_temporal_layer_want_whole_utterances() -> None:
    with pytest.raises(AssertionError, match="7 chunks are not a multiple of the 6 chunks of an utterance"):
        small_network(temporal="gru")(chunks()[:7])
    assert small_network()(chunks()[:7]).emotion.shape == (7, 2)
