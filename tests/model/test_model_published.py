import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from raydec.console.terminal import run_entry_point
from raydec.convert import main
from raydec.errors import UserError
from raydec.model.directory import load_model
from raydec.model.published import read_published

CHANNELS = (1, 32, 32, 64, 64, 128, 128, 128)


def published_state(num_clusters: int = 10, prefix: str = "module.") -> dict[str, torch.Tensor]:
    """Random weights under the names and shapes of a published checkpoint."""
    rng = torch.Generator().manual_seed(num_clusters)
    state: dict[str, torch.Tensor] = {}
    for i in range(7):
        before, after = CHANNELS[i : i + 2]
        conv, norm = f"cnn_features.{prefix}{3 * i}", f"cnn_features.{prefix}{3 * i + 1}"
        state[f"{conv}.weight"] = torch.randn(after, before, 3, 3, generator=rng) * 0.05
        for name in (f"{conv}.bias", f"{norm}.weight", f"{norm}.bias", f"{norm}.running_mean"):
            state[name] = torch.randn(after, generator=rng)
        state[f"{norm}.running_var"] = torch.rand(after, generator=rng) + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    for name, rows, columns in [
        (f"cnn_out.{prefix}0", 256, 1024),
        ("classifier.0", 256, 256),
        ("emo_regressor.0", 256, 256),
        ("top_layer_class", num_clusters, 256),
        ("top_layer_attri", 1, 256),
    ]:
        state[f"{name}.weight"] = torch.randn(rows, columns, generator=rng) * 0.05
        state[f"{name}.bias"] = torch.randn(rows, generator=rng)
    return state


@pytest.fixture
def published(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for short, num_clusters in (("act", 10), ("dom", 30), ("val", 30)):
        torch.save({"arch": "x", "state_dict": published_state(num_clusters)}, tmp_path / f"{short}.pth.tar")
    for name, size in (("feat", 128), ("act", 1), ("dom", 1), ("val", 1)):
        for kind in ("means", "stds"):
            terms = rng.random((1, size)) + 0.5
            scipy.io.savemat(tmp_path / f"{name}_norm_{kind}.mat", {"normal_para": terms})
    return tmp_path


def convert(folder: Path, *shorts: str) -> int:
    files = [word for short in shorts for word in (f"--{short}", str(folder / f"{short}.pth.tar"))]
    return run_entry_point(main, [*files, "--norm", str(folder), "--out", str(folder / "model")])


@pytest.mark.parametrize(
    ("shorts", "attributes"),
    [
        (("val", "act", "dom"), ("arousal", "dominance", "valence")),
        (("dom",), ("dominance",)),
        (("val", "act"), ("arousal", "valence")),
    ],
)
def test_any_subset_becomes_one_model(
    published: Path, shorts: tuple[str, ...], attributes: tuple[str, ...]
) -> None:
    assert convert(published, *shorts) == 0
    model = load_model(published / "model")
    assert model.attributes == attributes
    assert model.chunks.short == "as_is" and model.chunks.scale == "power"
    for spec, network in model.networks:
        assert spec.num_clusters == (10 if spec.attributes == ("arousal",) else 30)
        assert len(network.state_dict()) == 59
    terms = scipy.io.loadmat(published / "dom_norm_means.mat")["normal_para"]
    if "dominance" in attributes:
        assert model.networks[attributes.index("dominance")][0].label_mean == (terms.item(),)


def test_names_without_data_parallel_are_read_too(published: Path) -> None:
    for prefix in ("", "module."):
        path = published / f"{prefix or 'plain'}.pth.tar"
        torch.save({"state_dict": published_state(12, prefix)}, path)
        ((spec, network),) = read_published({"arousal": path}, published).networks
        assert spec.num_clusters == 12
        torch.testing.assert_close(
            network.cluster_head.top.weight, published_state(12)["top_layer_class.weight"]
        )


class Exploit:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_is_refused_and_never_run(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = published / "executed"
    for write in (
        lambda path: torch.save(Exploit(mark), path),
        lambda path: torch.save({"state_dict": Exploit(mark)}, path),
        lambda path: path.write_bytes(pickle.dumps(Exploit(mark))),
        lambda path: torch.save(Exploit(mark), path, _use_new_zipfile_serialization=False),
    ):
        write(published / "act.pth.tar")
        assert convert(published, "act") == 2
        captured = capsys.readouterr()
        assert "act.pth.tar is not a published checkpoint" in captured.err
        assert captured.err.count("\n") == 1 and not captured.out
    assert not mark.exists() and not (published / "model").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a published checkpoint"),
        (b"not a checkpoint", "is not a published checkpoint"),
        ({"state_dict": [1]}, "has no state_dict"),
        (torch.ones(3), "has no state_dict"),
        ({"state_dict": {"a.weight": torch.ones(1)}}, "unexpected entry 'a.weight'"),
        (
            {"state_dict": published_state() | {"classifier.0.bias": 3}},
            "unexpected entry 'classifier.0.bias'",
        ),
        ({"state_dict": published_state() | {"gru.weight": torch.ones(1)}}, "unexpected entry 'gru.weight'"),
        (
            {"state_dict": published_state() | {"top_layer_attri.bias": torch.ones(2)}},
            "emotion_head.top.bias",
        ),
        ({"state_dict": {k: v for k, v in published_state().items() if "top" not in k}}, "lacks the tensor"),
        (
            {"state_dict": published_state() | {"top_layer_class.weight": torch.tensor(1.0)}},
            "cluster_head.top",
        ),
    ],
)
def test_other_files_are_user_errors(published: Path, content: Any, message: str) -> None:
    path = published / "act.pth.tar"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=r"act\.pth\.tar") as caught:
        read_published({"arousal": path}, published)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_cut_checkpoint_is_a_user_error(published: Path) -> None:
    path = published / "act.pth.tar"
    content = path.read_bytes()
    for size in (10, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"act\.pth\.tar is not a published checkpoint"):
            read_published({"arousal": path}, published)


def test_bad_normalisation_terms_are_user_errors(published: Path) -> None:
    path = published / "feat_norm_stds.mat"
    for terms in (np.ones((1, 127)), np.zeros((1, 128)), np.full((1, 128), np.nan)):
        scipy.io.savemat(path, {"normal_para": terms})
        with pytest.raises(UserError, match=r"feat_norm_stds\.mat: normal_para must be 128 finite"):
            read_published({"arousal": published / "act.pth.tar"}, published)
    scipy.io.savemat(path, {"other": np.ones(128)})
    with pytest.raises(UserError, match=r"feat_norm_stds\.mat has no readable normal_para"):
        read_published({"arousal": published / "act.pth.tar"}, published)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError, match=r"feat_norm_stds\.mat has no readable normal_para"):
        read_published({"arousal": published / "act.pth.tar"}, published)
    path.unlink()
    with pytest.raises(UserError, match=r"feat_norm_stds\.mat does not exist"):
        read_published({"arousal": published / "act.pth.tar"}, published)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--norm", "n", "--out", "o"], "pass at least one of --act"),
        (["--act", "nowhere.pth.tar", "--out", "o"], "--norm"),
        (
            ["--act", "nowhere.pth.tar", "--norm", "nowhere", "--out", "o"],
            "act_norm_means.mat does not exist",
        ),
        (["--what"], "see python -m raydec.convert --help"),
    ],
)
def test_command_line_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_entry_point(main, arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
