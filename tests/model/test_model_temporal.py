import pytest
import torch
import torch.nn.functional as F
from corpus_support import mel_format
from torch import nn

from raydec.config import ModelConfig
from raydec.errors import UserError
from raydec.features.mel_front_end import MelFrontEnd
from raydec.model.assembly import build_network
from raydec.model.network import Network
from raydec.model.noise import Noise
from raydec.model.temporal import (
    CnnTemporal,
    GruTemporal,
    TransformerTemporal,
    build_temporal,
    draw_triplets,
    sinusoidal_positions,
    triplet_loss,
)


def sequence(dim: int = 32) -> torch.Tensor:
    return torch.randn(4, 11, dim, generator=torch.Generator().manual_seed(1))


def network(temporal: str) -> Network:
    return build_network(
        ModelConfig.model_validate({"temporal": temporal}), MelFrontEnd(), mel_format(), 1, 10
    )


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_transformer_equals_torch_encoder_layer_over_positions() -> None:
    ours = TransformerTemporal(32, 11, 0.3).eval()
    theirs = nn.TransformerEncoderLayer(32, 1, dim_feedforward=32, dropout=0.3, batch_first=True).eval()
    names = {
        "self_attn.in_proj_": ours.query_key_value,
        "self_attn.out_proj.": ours.attention_out,
        "linear1.": ours.feed_forward_in,
        "linear2.": ours.feed_forward_out,
        "norm1.": ours.attention_norm,
        "norm2.": ours.feed_forward_norm,
    }
    theirs.load_state_dict({prefix + n: p for prefix, m in names.items() for n, p in m.named_parameters()})
    x = sequence()
    torch.testing.assert_close(ours(x), theirs(x + sinusoidal_positions(11, 32)), rtol=1e-5, atol=1e-5)
    assert num_parameters(ours) == num_parameters(theirs)


def test_positions_are_sines_and_cosines_of_falling_rate() -> None:
    positions = sinusoidal_positions(11, 6)
    place, rate = torch.tensor(7.0), 10000 ** (-2 / 6)
    assert positions[7, 2].item() == pytest.approx(torch.sin(place * rate).item(), abs=1e-6)
    assert positions[7, 3].item() == pytest.approx(torch.cos(place * rate).item(), abs=1e-6)
    assert sinusoidal_positions(3, 5).shape == (3, 5)


def test_transformer_drops_attention_hidden_and_residuals() -> None:
    layer = TransformerTemporal(32, 11, 0.3)
    shapes: list[tuple[int, ...]] = []

    class Recorder(Noise):
        def uniform(self, shape, device):
            shapes.append(tuple(shape))
            return super().uniform(shape, device)

    layer(sequence(), Recorder(torch.Generator(), 4, 0, 4))
    assert shapes == [(4, 11, 11), (4, 11, 32), (4, 11, 32), (4, 11, 32)]


def test_gru_is_bidirectional_and_keeps_the_width() -> None:
    layer = GruTemporal(32)
    assert layer.gru.bidirectional and layer.gru.hidden_size == 16
    x = sequence()
    changed = x.clone()
    changed[:, 5] += 1.0
    moved = (layer(changed) - layer(x)).abs().amax(dim=(0, 2)) > 0
    assert moved.all(), "every chunk hears of a change in the middle"


def test_cnn_sees_the_map_as_an_image() -> None:
    layer = CnnTemporal(0.3).eval()
    changed = sequence().clone()
    changed[0, 5, 16] += 100.0
    reached = (layer(changed) - layer(sequence()))[0].abs() > 0
    rows, columns = reached.nonzero().unbind(1)
    assert reached.any() and rows.min() >= 1 and rows.max() <= 9, "two 5x5 kernels reach 4 to each side"
    assert columns.min() >= 12 and columns.max() <= 20


@pytest.mark.parametrize(
    ("temporal", "extra"),
    [
        ("gru", 2 * (3 * 128 * (256 + 128) + 6 * 128)),
        ("cnn", 25 * 16 + 16 + 32 + 25 * 16 + 1 + 2),
        ("transformer", 6 * (256 * 256 + 256) + 4 * 256),
        ("triplet", 0),
    ],
)
def test_parameters_added_by_the_temporal_layer(temporal: str, extra: int) -> None:
    assert num_parameters(network(temporal)) == 831_979 + extra


def test_triplet_network_drops_nothing_and_shows_its_sequence() -> None:
    model = network("triplet").eval()
    chunks = torch.randn(22, 62, 128)
    output = model(chunks, Noise(torch.Generator(), 2, 0, 2))
    assert output.sequence is not None and output.sequence.shape == (2, 11, 256)
    assert torch.equal(output.sequence.flatten(0, 1), model.encoder(chunks))


def test_unsuitable_widths_are_user_errors() -> None:
    with pytest.raises(UserError, match=r"model\.temporal=gru needs an even width, not 7"):
        build_temporal("gru", 7, 11, 0.3)
    with pytest.raises(UserError, match=r"features\.num_chunks=3.*needs at least 4"):
        build_temporal("triplet", 8, 3, 0.3)


@pytest.mark.parametrize("num_chunks", [4, 5, 6, 11])
def test_triplets_keep_their_distance(num_chunks: int) -> None:
    anchor, positive, negative = draw_triplets(num_chunks, 300, 10, torch.Generator().manual_seed(0)).unbind(
        -1
    )
    near, far = (anchor - positive).abs(), (anchor - negative).abs()
    assert ((near >= 1) & (near <= 2)).all() and (far > 2).all()
    for part in (anchor, positive, negative):
        assert part.min() >= 0 and part.max() < num_chunks


def test_triplets_are_uniform_over_what_is_allowed() -> None:
    triplets = draw_triplets(11, 3000, 10, torch.Generator().manual_seed(0)).flatten(0, 1)
    counts = torch.bincount(triplets[:, 0], minlength=11)
    assert (counts - 30000 / 11).abs().max() < 5 * (30000 / 11) ** 0.5
    of_anchor_5 = triplets[triplets[:, 0] == 5]
    assert set(of_anchor_5[:, 1].tolist()) == {3, 4, 6, 7}
    assert set(of_anchor_5[:, 2].tolist()) == {0, 1, 2, 8, 9, 10}
    positives = torch.bincount(of_anchor_5[:, 1], minlength=11)[[3, 4, 6, 7]]
    assert (positives - len(of_anchor_5) / 4).abs().max() < 5 * (len(of_anchor_5) / 4) ** 0.5


def test_triplet_loss_is_the_hinge_of_euclidean_distances() -> None:
    x = sequence()
    triplets = draw_triplets(11, 4, 10, torch.Generator().manual_seed(2))
    losses = triplet_loss(x, triplets, 1.0)
    assert losses.shape == (4, 10)
    a, p, n = (x[2, triplets[2, 7, i]] for i in range(3))
    expected = F.relu((a - p).norm() - (a - n).norm() + 1.0)
    assert losses[2, 7].item() == pytest.approx(expected.item(), abs=1e-4)
    assert triplet_loss(x[:0], triplets[:0], 1.0).shape == (0, 10)
