"""Exported models against the networks they were made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_support import small_model

import raydec.export
from raydec.console.terminal import run_entry_point
from raydec.errors import UserError
from raydec.features.mel_front_end import MelFrontEnd
from raydec.model import onnx_export
from raydec.model.directory import ChunkFormat, load_model, save_model
from raydec.model.onnx_export import export_onnx
from raydec.model.trained import TrainedModel

onnx = pytest.importorskip("onnx", reason="onnx is in the onnx extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the onnx extra")
pytest.importorskip("onnxscript", reason="onnxscript is in the onnx extra")

TWO_NETWORKS = ["scores", "embedding_arousal_valence", "cluster_logits_arousal_valence"]
TWO_NETWORKS += ["embedding_dominance", "cluster_logits_dominance"]


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def torch_outputs(trained: TrainedModel, chunks: np.ndarray) -> dict[str, np.ndarray]:
    """The same outputs, combined from the networks step by step."""
    scores, found = [], {}
    for spec, network in trained.networks:
        with torch.no_grad():
            output = network(torch.from_numpy(chunks))
        scores.append(output.emotion.numpy() * np.float64(spec.label_std) + np.float64(spec.label_mean))
        end = "" if len(trained.networks) == 1 else "_" + "_".join(spec.attributes)
        found["embedding" + end] = output.embedding.numpy()
        if output.cluster_logits is not None:
            found["cluster_logits" + end] = output.cluster_logits.numpy()
    return found | {"scores": np.concatenate(scores, axis=1)}


def assert_same_outputs(
    session: onnxruntime.InferenceSession, trained: TrainedModel, chunks: np.ndarray
) -> None:
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"chunks": chunks}), strict=True))
    wanted = torch_outputs(trained, chunks)
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], atol=1e-4, rtol=0, err_msg=name)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small_model()`` as a file; an export takes seconds."""
    path = tmp_path_factory.mktemp("exported") / "deep" / "model.onnx"
    trained = small_model()
    before = {name: tensor.clone() for name, tensor in trained.networks[0][1].state_dict().items()}
    random_state = torch.get_rng_state()
    written = export_onnx(trained, path)
    # Neither the model nor global state has changed.
    after = trained.networks[0][1].state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(random_state, torch.get_rng_state())
    assert written.outputs == dict(zip(TWO_NETWORKS, (3, 16, 5, 16, 5), strict=True))
    assert written.largest_difference < 1e-4 and written.num_bytes == path.stat().st_size
    return path


def test_any_number_of_chunks_gives_torchs_outputs(exported: Path) -> None:
    session = session_of(exported)
    assert [output.name for output in session.get_outputs()] == TWO_NETWORKS
    assert session.get_inputs()[0].shape[1:] == [62, 128]
    for count in (1, 2, 5, 30):
        assert_same_outputs(session, small_model(), noise(count, 62, 128))
    onnx.checker.check_model(str(exported), full_check=True)


@pytest.mark.parametrize(
    "model",
    [*({"temporal": kind} for kind in ("gru", "cnn", "transformer", "triplet")), {"pooling": "attentive"}],
    ids=lambda model: "-".join(model.values()),
)
def test_some_networks_take_any_number_of_whole_utterances(model: dict[str, str], tmp_path: Path) -> None:
    trained = small_model(model=model)
    trained.networks = trained.networks[1:]
    export_onnx(trained, tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx")
    for count in (11, 22, 55):
        assert_same_outputs(session, trained, noise(count, 62, 128))


def test_one_network_without_a_cluster_head(tmp_path: Path) -> None:
    trained = small_model(centroids=False, model={"kind": "vae"})
    trained.networks = trained.networks[:1]
    export_onnx(trained, tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["scores", "embedding"]
    assert_same_outputs(session, trained, noise(3, 62, 128))
    # The decoder is not needed for predictions, so its weights are not exported.
    size = (tmp_path / "model.onnx").stat().st_size
    num_used = sum(p.numel() for n, p in trained.networks[0][1].named_parameters() if "decoder" not in n)
    assert size < 4 * num_used + 100_000


def test_the_file_stands_alone_and_names_no_machine(tmp_path: Path) -> None:
    """Chunks of converted models may be shorter; the metadata says how chunks are made."""
    trained = small_model(chunks=ChunkFormat("power", 3.0, 11, 62, "as_is"))
    export_onnx(trained, tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx")
    for frames in (53, 57, 62):
        assert_same_outputs(session, trained, noise(4, frames, 128))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["attributes"]) == ["arousal", "valence", "dominance"]
    assert MelFrontEnd.from_dict(json.loads(metadata["features"])) == MelFrontEnd()
    assert ChunkFormat(**json.loads(metadata["chunks"])) == trained.chunks
    for key in ("feature_mean", "feature_std"):
        np.testing.assert_array_equal(np.float32(json.loads(metadata[key])), getattr(trained, key))
    content = (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in content and str(Path(onnx_export.__file__).parent).encode() not in content
    assert list(tmp_path.iterdir()) == [tmp_path / "model.onnx"]


def test_a_file_that_disagrees_with_torch_is_never_put_in_place(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"the last good one")

    def slightly_wrong(trained: TrainedModel) -> bytes:
        model = onnx.load(str(exported))
        bias = next(t for t in model.graph.initializer if t.name.endswith("emotion_head.top.bias"))
        bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + np.float32(1e-3)).tobytes()
        return model.SerializeToString()

    monkeypatch.setattr(onnx_export, "_convert", slightly_wrong)
    with pytest.raises(RuntimeError, match=r"ONNX output scores differs from PyTorch's by 0\.00"):
        export_onnx(small_model(), target)
    assert target.read_bytes() == b"the last good one"
    assert list(tmp_path.iterdir()) == [target]


def test_the_command_writes_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(small_model(), "model")
    (tmp_path / "m.onnx").write_bytes(b"old")
    assert run_entry_point(raydec.export.main, ["model", "--onnx", "m.onnx"]) == 0
    printed, complaints = capfd.readouterr()
    assert "wrote m.onnx" in printed and "scores [3] (arousal, valence, dominance)" in printed
    assert complaints == ""
    assert_same_outputs(session_of(tmp_path / "m.onnx"), load_model("model"), noise(2, 62, 128))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model"], "--onnx"),
        (["model", "--onnx", "model/model.safetensors"], "does not end in .onnx"),
        (["nothing", "--onnx", "m.onnx"], "nothing is not a model directory"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(small_model(), "model")
    assert run_entry_point(raydec.export.main, arguments) == 2
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1
    assert load_model("model").attributes == ("arousal", "valence", "dominance")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(onnx_export, "_convert", lambda trained: b"")
    monkeypatch.setattr(onnx_export, "_check", lambda trained, content: ({}, 0.0))
    with pytest.raises(UserError, match=r"cannot write .*m\.onnx: "):
        export_onnx(small_model(), tmp_path / "file" / "m.onnx")


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_spec = onnx_export.importlib.util.find_spec
    monkeypatch.setattr(
        onnx_export.importlib.util,
        "find_spec",
        lambda name: None if name == "onnxscript" else find_spec(name),
    )
    with pytest.raises(UserError, match=r'needs onnxscript; install with: pip install "raydec\[onnx\]"'):
        export_onnx(small_model(), tmp_path / "model.onnx")
