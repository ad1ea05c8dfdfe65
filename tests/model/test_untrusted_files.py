"""Feature stores and checkpoints from untrusted sources cannot run code."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stores import make_store

from raydec.errors import UserError
from raydec.features.store import FeatureStore
from raydec.learning.checkpoint import RunState, load_state, save_state


class Exploit:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def read_store(folder: Path) -> None:
    store = FeatureStore.open(folder)
    store.verify()
    store.frames(0)


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stranger")
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    save_state(RunState(epoch=1, network={"w": torch.ones(2)}), checkpoint)
    return {"store": make_store(folder, num_train=2, num_other=2, num_unlabeled=0), "checkpoint": checkpoint}


FILES: list[tuple[str, str, Callable[[Path], object]]] = [
    ("store", "store.json", read_store),
    ("store", "utterances.arrow", read_store),
    ("store", "frames-00000.arrow", read_store),
    ("checkpoint", "state.json", load_state),
    ("checkpoint", "state.safetensors", load_state),
]


@pytest.mark.parametrize(("kind", "name", "read"), FILES)
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_under_any_name_is_refused_and_never_run(
    handed_over: dict[str, Path],
    tmp_path: Path,
    kind: str,
    name: str,
    read: Callable[[Path], object],
    writer: str,
) -> None:
    folder, mark = tmp_path / kind, tmp_path / "mark"
    shutil.copytree(handed_over[kind], folder)
    read(folder)
    if writer == "pickle":
        (folder / name).write_bytes(pickle.dumps(Exploit(mark)))
    else:
        torch.save(Exploit(mark), folder / name)
    with pytest.raises(UserError):
        read(folder)
    assert not mark.exists()
    # The exploit works where pickles are allowed.
    torch.load(folder / name, weights_only=False) if writer == "torch" else pickle.loads(
        (folder / name).read_bytes()
    )
    assert mark.exists()
