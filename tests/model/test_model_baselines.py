import pytest
import torch
from corpus_support import mel_format

from raydec.config import ModelConfig
from raydec.features.mel_front_end import MelFrontEnd
from raydec.model.assembly import build_network
from raydec.model.baselines import Autoencoder, Regressor, VariationalAutoencoder
from raydec.model.network import Network
from raydec.model.noise import Noise


def baseline(kind: str, chunk_frames: int = 62, **model: object) -> Network:
    settings = {
        "kind": kind,
        "channels": (4, 4, 6, 6, 8, 8, 8),
        "embedding_dim": 16,
        "latent_dim": 12,
        **model,
    }
    network = build_network(
        ModelConfig.model_validate(settings), MelFrontEnd(), mel_format(chunk_frames=chunk_frames), 3, 10
    )
    network.initialize(torch.Generator().manual_seed(0))
    return network.eval()


def chunks(frames: int = 62) -> torch.Tensor:
    return torch.randn(22, frames, 128, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "cls", "width"),
    [("regressor", Regressor, 16), ("autoencoder", Autoencoder, 12), ("vae", VariationalAutoencoder, 12)],
)
def test_baselines_have_no_cluster_head_but_an_embedding(kind: str, cls: type, width: int) -> None:
    network = baseline(kind)
    assert type(network) is cls and not network.has_cluster_head
    output = network(chunks())
    assert output.cluster_logits is None and output.emotion.shape == (22, 3)
    assert output.embedding.shape == (22, width) and network.embedding_dim == width
    assert torch.equal(network.embed(chunks()), output.embedding)
    assert network.top_layer_parameters() == []
    assert len(network.body_parameters()) == len(list(network.parameters()))
    with pytest.raises(TypeError, match="has no cluster head"):
        network.reset_cluster_head(5, torch.Generator())


@pytest.mark.parametrize("kind", ["autoencoder", "vae"])
@pytest.mark.parametrize("frames", [53, 61, 62, 63, 64, 65, 80])
def test_decoder_mirrors_every_chunk_length(kind: str, frames: int) -> None:
    network = baseline(kind, frames)
    reconstruction = network(chunks(frames)).reconstruction
    assert reconstruction is not None and reconstruction.shape == (22, frames, 128)


def test_decoder_mirrors_the_channels() -> None:
    network = build_network(ModelConfig(kind="autoencoder"), MelFrontEnd(), mel_format(), 1, 10)
    weights = [m.weight.shape[:2] for m in network.decoder.convolutions if hasattr(m, "output_padding")]
    assert weights == [(128, 128), (128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (32, 1)]


def test_autoencoder_learns_to_reconstruct() -> None:
    network = baseline("autoencoder", dropout=0.0).train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    target = torch.sin(torch.arange(128) / 9.0).expand(22, 62, 128) * torch.linspace(-1, 1, 22)[:, None, None]
    errors = []
    for _ in range(60):
        loss = (network(target).reconstruction - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.3 * errors[0]


def test_vae_samples_only_with_noise() -> None:
    network = baseline("vae", dropout=0.0)
    output = network(chunks())
    assert torch.equal(output.reconstruction, network(chunks()).reconstruction)
    assert torch.equal(output.latent_mean, output.embedding)
    assert output.latent_log_variance.shape == (22, 12)
    sampled = network(chunks(), Noise(torch.Generator(), 2, 0, 2))
    assert torch.equal(sampled.latent_mean, output.latent_mean)
    assert not torch.equal(sampled.reconstruction, output.reconstruction)


@pytest.mark.parametrize("temporal", ["gru", "cnn", "transformer"])
def test_baselines_take_a_temporal_layer(temporal: str) -> None:
    for kind in ("regressor", "autoencoder", "vae"):
        assert baseline(kind, temporal=temporal)(chunks()).emotion.shape == (22, 3)
