import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_support import mel_format
from safetensors.torch import load_file, save_file

from raydec.config import ModelConfig
from raydec.errors import UserError
from raydec.features.mel_front_end import MelFrontEnd
from raydec.model.assembly import build_network
from raydec.model.directory import ChunkFormat, NetworkSpec, TrainedModel, load_model, save_model

FILES = {"model.safetensors", "config.json", "centroids.npy", "README.md"}


def network_of(attributes: tuple[str, ...], seed: int, **model: Any) -> tuple[NetworkSpec, Any]:
    settings = ModelConfig.model_validate(
        {"channels": (4,) * 7, "embedding_dim": 16, "latent_dim": 6} | model
    )
    network = build_network(settings, MelFrontEnd(), mel_format(), len(attributes), 5)
    network.initialize(torch.Generator().manual_seed(seed))
    network(torch.randn(11, 62, 128, generator=torch.Generator().manual_seed(seed)))
    numbers = tuple(4.0 + i / 3 for i in range(len(attributes)))
    return NetworkSpec(attributes, 5, settings.model_dump(mode="json"), numbers, numbers), network.eval()


def saved_model(**changes: Any) -> TrainedModel:
    rng = np.random.default_rng(0)
    content = {
        "networks": [network_of(("arousal", "valence"), 1), network_of(("dominance",), 2, temporal="gru")],
        "front_end": MelFrontEnd(),
        "chunks": ChunkFormat("log", 3.0, 11, 62, "as_is"),
        "feature_mean": rng.normal(size=128).astype(np.float32),
        "feature_std": rng.random(128).astype(np.float32),
        "centroids": rng.normal(size=(5, 16)).astype(np.float32),
        "resampler": "kaiser",
        "extra": {"run": "trial", "scores": {"test1": {"arousal": 0.51234, "valence": float("nan")}}},
    }
    return TrainedModel(**(content | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(saved_model(), tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip(folder: Path) -> None:
    before, after = saved_model(), load_model(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    assert after.attributes == ("arousal", "valence", "dominance")
    assert (after.front_end, after.chunks) == (before.front_end, before.chunks)
    assert after.resampler == before.resampler == "kaiser"
    for name in ("feature_mean", "feature_std", "centroids"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    for (spec, network), (old_spec, old) in zip(after.networks, before.networks, strict=True):
        assert spec == old_spec and not network.training
        pairs = zip(network.state_dict().items(), old.state_dict().items(), strict=True)
        assert all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)
    assert after.extra["scores"]["test1"] == {"arousal": 0.51234, "valence": None}


@pytest.mark.parametrize("kind", ["deepemocluster", "regressor", "autoencoder", "vae"])
@pytest.mark.parametrize("temporal", ["none", "gru", "cnn", "transformer", "triplet"])
def test_every_architecture_predicts_the_same_after_a_round_trip(
    kind: str, temporal: str, tmp_path: Path
) -> None:
    entry = network_of(("arousal",), 3, kind=kind, temporal=temporal)
    save_model(saved_model(networks=[entry], centroids=None), tmp_path / "m")
    chunks = torch.randn(22, 62, 128, generator=torch.Generator().manual_seed(5))
    loaded = load_model(tmp_path / "m")
    assert loaded.centroids is None
    assert torch.equal(loaded.networks[0][1](chunks).emotion, entry[1](chunks).emotion)


def test_saving_again_replaces_the_old_model_and_keeps_what_others_put_there(folder: Path) -> None:
    (folder / "model.onnx").write_text("somebody's export")
    save_model(saved_model(centroids=None, extra={"run": "second"}), folder)
    assert {path.name for path in folder.iterdir()} == FILES - {"centroids.npy"} | {"model.onnx"}
    assert load_model(folder).extra["run"] == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_crash_while_writing_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("raydec.model.directory.np.save", crash)
    with pytest.raises(UserError, match=r"cannot write model directory .*No space left"):
        save_model(saved_model(extra={"run": "second"}), folder)
    assert load_model(folder).extra["run"] == "trial"
    monkeypatch.undo()
    save_model(saved_model(extra={"run": "third"}), folder)
    assert load_model(folder).extra["run"] == "third"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("content", ["notes", '{"format": "other"}', "[]"])
def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="is not a raydec model directory"):
        save_model(saved_model(), tmp_path)
    assert (tmp_path / "config.json").read_text() == content


def test_an_empty_folder_is_used_and_files_are_readable_by_others(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    save_model(saved_model(), tmp_path / "m")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o777 & ~mask
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "m").iterdir()} == {0o666 & ~mask}


class Exploit:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "centroids.npy"])
@pytest.mark.parametrize("writer", ["pickle", "torch", "npy", "npz"])
def test_a_pickle_under_any_name_is_refused_and_never_run(folder: Path, name: str, writer: str) -> None:
    mark = folder.parent / "executed"
    exploit, path = Exploit(mark), folder / name
    if writer == "pickle":
        path.write_bytes(pickle.dumps(exploit))
    elif writer == "torch":
        torch.save(exploit, path)
    else:
        with path.open("wb") as file:
            array = np.array([exploit], dtype=object)
            np.save(file, array) if writer == "npy" else np.savez(file, array)
    assert name in refusal(folder)
    assert not mark.exists()
    shutil.copy(path, folder.parent / "copy.npy")
    if writer == "npy":
        np.load(folder.parent / "copy.npy", allow_pickle=True)
        assert mark.exists(), "the exploit works where pickles are allowed"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "centroids.npy"])
def test_missing_and_cut_files_are_named(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for size in (0, 7, len(content) // 2, len(content) - 1 - content.endswith(b"\n")):
        path.write_bytes(content[:size])
        assert name in refusal(folder)
    path.unlink()
    assert name in refusal(folder)


def test_no_model_directory_at_all(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "absent")
    assert "config.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, r"schema_version 2, but this raydec reads 1"),
        ({"format": "x"}, r"is not the config of a raydec model"),
        ({"surprise": 1}, r"surprise: extra inputs are not permitted"),
        ({"networks": []}, r"networks: "),
        ({"centroids": "../../etc/passwd"}, r"centroids: "),
        ({"features": {"n_mels": 128}}, r"features: missing or unknown feature parameters"),
        ({"features": MelFrontEnd(n_fft=10**12).to_dict()}, r"features are out of range"),
        ({"features": MelFrontEnd(n_mels=64).to_dict()}, r"must have 64 means"),
        ({"feature_normalization": {"mean": [0.0], "std": [1.0]}}, r"must have 128 means"),
        (
            {"chunks": {"scale": "log", "clip": 3, "num_chunks": 11, "chunk_frames": 1, "short": "tile"}},
            "chunk_f",
        ),
    ],
)
def test_malformed_configs_are_user_errors(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    found = refusal(folder)
    assert "config.json" in found
    assert re.search(message, found), found


def test_a_missing_key_is_named(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    # Directories that are older than front ends name none and hold mel frames.
    (folder / "config.json").write_text(json.dumps({k: v for k, v in document.items() if k != "front_end"}))
    assert load_model(folder).front_end == MelFrontEnd()
    for key in document.keys() - {"front_end"}:
        (folder / "config.json").write_text(json.dumps({k: v for k, v in document.items() if k != key}))
        assert "config.json" in refusal(folder)
    del document["networks"][1]["label_std"]
    (folder / "config.json").write_text(json.dumps(document))
    assert "networks.1.label_std: field required" in refusal(folder)


def test_networks_that_contradict_themselves(folder: Path) -> None:
    networks = json.loads((folder / "config.json").read_text())["networks"]
    edit_config(folder, networks=[networks[0], networks[1] | {"attributes": ["arousal"]}])
    assert "predicted twice" in refusal(folder)
    edit_config(folder, networks=[networks[0] | {"label_mean": [1.0]}, networks[1]])
    assert "one number per attribute" in refusal(folder)
    edit_config(folder, networks=networks[:1])
    assert "contains a tensor that config.json does not mention: networks.1." in refusal(folder)


def test_an_architecture_too_large_for_the_weights_is_refused_before_it_is_built(folder: Path) -> None:
    networks = json.loads((folder / "config.json").read_text())["networks"]
    networks[0]["model"]["embedding_dim"] = 10**6
    edit_config(folder, networks=networks)
    assert "model.safetensors: cluster_head.hidden.bias is torch.float32 [16]" in refusal(folder)


def test_weights_that_do_not_fit_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "networks.0.emotion_head.top.weight"
    for broken, message in [
        ({k: v for k, v in weights.items() if k != name}, "lacks the tensor emotion_head.top.weight"),
        (weights | {"networks.0.more": torch.ones(1)}, "contains a tensor more"),
        (weights | {name: torch.ones(3, 16)}, "is torch.float32 [3, 16]; the network needs"),
        (weights | {name: weights[name].half()}, "is torch.float16"),
        (weights | {name: weights[name] / 0.0}, "NaN or infinite"),
    ]:
        save_file(broken, path)
        assert message in refusal(folder)


def test_centroids_that_do_not_fit_are_named(folder: Path) -> None:
    for broken in (
        np.ones((5, 3), np.float32),
        np.ones(16, np.float32),
        np.ones((5, 16)),
        np.full((5, 16), np.nan, np.float32),
    ):
        np.save(folder / "centroids.npy", broken)
        assert "centroids.npy" in refusal(folder)
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 16), }"
    (folder / "centroids.npy").write_bytes(header + text.ljust(117).encode() + b"\n")
    assert "centroids.npy" in refusal(folder)


def test_card_shows_scores_and_warns_of_synthetic_data(tmp_path: Path) -> None:
    save_model(saved_model(), tmp_path / "real")
    card = (tmp_path / "real" / "README.md").read_text()
    assert "| test1 | 0.512 | – | – |" in card and "synthetic" not in card
    save_model(saved_model(extra={"synthetic": True, "corpus": "demo"}), tmp_path / "demo")
    card = (tmp_path / "demo" / "README.md").read_text()
    assert "synthetic corpus" in card and "Not measured" in card and "training corpus: demo" in card
