"""Features of pretrained encoders against transformers run on one clip at a time."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from corpus_support import Spoken, voice, write_corpus
from encoder_support import by_transformers, tiny_encoder

from raydec.config import FeatureConfig
from raydec.errors import UserError
from raydec.features.encoder_front_end import EncoderFrontEnd, encoder_front_end
from raydec.features.encoder_network import load_encoder
from raydec.features.front_end import FrontEnd
from raydec.features.store import FeatureStore
from raydec.preparation import prepare_store

# The published system has power, which only mel frames have.
SEARCHES = sorted(
    path for path in (Path(__file__).parents[2] / "tune_configs").glob("*.yaml") if path.stem != "paper"
)

FAMILIES = ("hubert", "wav2vec2", "wavlm", "whisper")


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / request.param, request.param)


def assert_equal_states(folder: Path, seconds: float) -> None:
    front_end = encoder_front_end(str(folder), "all")
    samples = voice(3, seconds)
    found = load_encoder(front_end).hidden_states(samples)
    expected = by_transformers(folder, samples)
    assert len(found) == len(front_end.layers) == len(expected)
    for layer, states in enumerate(expected):
        assert found[layer].shape == states.shape
        error = (found[layer] - states).abs().max() / states.abs().max()
        assert error < 1e-4, f"layer {layer} of {seconds} s differs by {error}"


@pytest.mark.parametrize("seconds", [0.3, 2.37])
def test_hidden_states_are_those_of_transformers(tiny: Path, seconds: float) -> None:
    assert_equal_states(tiny, seconds)


def test_whisper_takes_clips_of_more_than_30_s_in_pieces(tmp_path: Path) -> None:
    assert_equal_states(tiny_encoder(tmp_path / "whisper", "whisper"), 60.0)


@pytest.mark.encoders
@pytest.mark.parametrize("seconds", [0.3, 4.0, 60.0])
def test_hidden_states_of_a_real_encoder(encoders_dir: Path, seconds: float) -> None:
    assert_equal_states(encoders_dir / "whisper-base", seconds)


def test_layers_differ_and_are_chosen_by_number(tiny: Path) -> None:
    everything = encoder_front_end(str(tiny), "all").frames(voice(1, 1.0))
    last = encoder_front_end(str(tiny), "last").frames(voice(1, 1.0))
    width = last.shape[1]
    num_layers = everything.shape[1] // width
    torch.testing.assert_close(everything[:, -width:], last)
    by_layer = everything.view(11, num_layers, width)
    assert all((by_layer[:, i] - by_layer[:, i + 1]).abs().max() > 1e-3 for i in range(num_layers - 1))
    chosen = encoder_front_end(str(tiny), "2,0")
    assert chosen.layers == (0, 2)
    torch.testing.assert_close(chosen.frames(voice(1, 1.0)), by_layer[:, [0, 2]].flatten(1))


def test_a_chunk_holds_mean_and_deviation_of_its_hidden_states(tiny: Path) -> None:
    front_end = encoder_front_end(str(tiny), "last")
    samples = voice(5, 3.0)
    states = by_transformers(tiny, samples)[-1].numpy()
    # 50 states a second, 11 chunks of 50 of them, as far apart as a whole number of states allows.
    step = (len(states) - 50) // 10
    chunks = [states[i * step : i * step + 50] for i in range(11)]
    expected = np.array([np.concatenate([chunk.mean(axis=0), chunk.std(axis=0)]) for chunk in chunks])
    np.testing.assert_allclose(front_end.frames(samples).numpy(), expected, atol=2e-4)


def make(tmp_path: Path, front_end: FrontEnd, names: list[str]) -> FeatureStore:
    spoken = {
        f"u{i}.wav": Spoken(f"u{i}.wav", seconds=0.3 + 0.4 * i, arousal=1.0 + i, seed=i) for i in range(5)
    }
    corpus = write_corpus(tmp_path / "audio", [spoken[name] for name in names])
    folder = tmp_path / "-".join(["store", *names])
    prepare_store(corpus, folder, num_workers=0, quiet=True, front_end=front_end)
    return FeatureStore.open(folder)


def test_features_do_not_depend_on_what_else_is_in_the_corpus(tmp_path: Path, tiny: Path) -> None:
    front_end = encoder_front_end(str(tiny), "all")
    names = [f"u{i}.wav" for i in range(5)]
    together, backwards = make(tmp_path, front_end, names), make(tmp_path, front_end, names[::-1])
    alone = make(tmp_path, front_end, ["u3.wav"])
    assert together.frames(3).shape == (11, front_end.width)
    np.testing.assert_array_equal(together.frames(3), backwards.frames(1))
    np.testing.assert_array_equal(together.frames(3), alone.frames(0))


def test_a_store_says_how_it_was_made_and_opens_without_the_encoder(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "tiny", "wavlm")
    store = make(tmp_path, encoder_front_end(str(folder), "all"), ["u0.wav", "u1.wav"])
    content = json.loads((store.path / "store.json").read_text())
    assert content["front_end"] == "encoder"
    assert content["features"]["feeding"] == "true_length"
    assert content["features"]["layers"] == [0, 1, 2, 3]
    assert str(tmp_path) not in json.dumps(content["features"])
    (folder / "model.safetensors").unlink()
    opened = FeatureStore.open(store.path).front_end
    assert isinstance(opened, EncoderFrontEnd) and opened == store.front_end
    with pytest.raises(UserError, match="name its folder with --encoder DIR"):
        opened.frames(voice(0, 1.0))


def test_another_encoder_is_refused_by_its_checksum(tmp_path: Path) -> None:
    first = encoder_front_end(str(tiny_encoder(tmp_path / "first", "hubert")))
    other = tiny_encoder(tmp_path / "other", "hubert", seed=1)
    with pytest.raises(UserError, match="checksum"):
        first.located(str(other))
    (tmp_path / "moved").symlink_to(tmp_path / "first")
    assert first.located(str(tmp_path / "moved")) == first


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), r"no \*\.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "save_pretrained"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "'bert'"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 64), "cannot be loaded"),
    ],
)
def test_folders_that_are_no_encoder_are_user_errors(tmp_path: Path, spoil: object, message: str) -> None:
    folder = tiny_encoder(tmp_path / "tiny", "wavlm")
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        encoder_front_end(str(folder)).frames(voice(0, 0.5))


@pytest.mark.parametrize("search", SEARCHES, ids=lambda path: path.stem)
def test_shipped_searches_take_stores_of_encoders_too(tiny: Path, search: Path) -> None:
    given = yaml.safe_load(search.read_text()).get("features", {})
    assert encoder_front_end(str(tiny), "all").chunk_format(FeatureConfig(**given)).scale == "plain"


def test_other_rates_layers_and_a_missing_extra_are_user_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="8000 Hz"):
        encoder_front_end(str(tiny_encoder(tmp_path / "slow", "wavlm", rate=8_000)))
    folder = str(tiny_encoder(tmp_path / "tiny", "wavlm"))
    for layers in ("4", "-1", "1,1", "first", ""):
        with pytest.raises(UserError, match="from 0 to 3"):
            encoder_front_end(folder, layers)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"raydec\[encoders\]"):
        encoder_front_end(folder)


def test_a_name_on_the_hub_is_fetched_at_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123abcd" * 5
    folder = tiny_encoder(tmp_path / commit, "wavlm")
    asked = []

    def snapshot(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        if repository != "owner/name":
            raise OSError("404 Client Error\nmore")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    front_end = encoder_front_end("hf:owner/name@main")
    assert (front_end.encoder, front_end.revision) == ("hf:owner/name", commit)
    assert asked == [("owner/name", "main")]
    # A store or model knows name and commit only, and finds the encoder again.
    again = EncoderFrontEnd.from_dict(front_end.to_dict())
    assert torch.equal(again.frames(voice(0, 0.5)), front_end.frames(voice(0, 0.5)))
    assert asked[-1] == ("owner/name", commit)
    with pytest.raises(UserError, match="404 Client Error; name a local folder"):
        encoder_front_end("hf:owner/other")
