import pytest
import torch
from corpus_support import mel_format

from raydec.config import ModelConfig
from raydec.features.mel_front_end import MelFrontEnd
from raydec.model.assembly import build_network
from raydec.model.folding import folded


def test_a_folded_network_computes_the_same_function() -> None:
    generator = torch.Generator().manual_seed(0)
    network = build_network(ModelConfig(temporal="cnn"), MelFrontEnd(), mel_format(), 2, 4)
    network.initialize(generator)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2.0, generator=generator)
    chunks = torch.randn(11, 62, 128, generator=generator)
    twin = folded(network)
    network.eval()
    with torch.inference_mode():
        expected, output = network(chunks), twin(chunks)
    scale = expected.embedding.abs().max()
    assert (output.embedding - expected.embedding).abs().max() < 1e-5 * scale
    assert (output.emotion - expected.emotion).abs().max() < 1e-5 * expected.emotion.abs().max()
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in twin.modules())
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize("kind", ["autoencoder", "vae"])
def test_a_folded_autoencoder_predicts_the_same_without_decoding(kind: str) -> None:
    network = build_network(ModelConfig(kind=kind), MelFrontEnd(), mel_format(), 2, 4).eval()
    chunks = torch.randn(11, 62, 128)
    with torch.inference_mode():
        expected, output = network(chunks), folded(network)(chunks)
    torch.testing.assert_close(output.emotion, expected.emotion)
    torch.testing.assert_close(output.embedding, expected.embedding)
    assert output.reconstruction is None and expected.reconstruction is not None
