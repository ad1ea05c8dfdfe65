"""Ray Train's list of checkpoints may be damaged; the checkpoints are found without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydec.learning.checkpoint import RunState, load_state, save_state

pytest.importorskip("ray")

from raydec.ray_runtime.snapshot import SNAPSHOT_FILE, mend_snapshot


def run_with(folder: Path, *epochs: int) -> Path:
    for epoch in epochs:
        checkpoint = folder / "checkpoints" / f"epoch-{epoch:05d}"
        checkpoint.mkdir(parents=True)
        save_state(RunState(epoch=epoch, network={"w": torch.full((3,), float(epoch))}), checkpoint)
    return folder


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("left", ["", '{"checkpoint_results": [', "[]"])
def test_what_is_left_of_the_list_is_dropped_and_the_newest_whole_checkpoint_found(
    tmp_path: Path, left: str, scheme: str
) -> None:
    run = run_with(tmp_path, 1, 2, 3)
    weights = run / "checkpoints" / "epoch-00003" / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    snapshot = run / "checkpoints" / SNAPSHOT_FILE
    snapshot.write_text(left)
    found = mend_snapshot(f"{scheme}{run}")
    assert found == f"{scheme}{run}/checkpoints/epoch-00002"
    assert load_state(Path(found.removeprefix("file://"))).epoch == 2
    assert not snapshot.exists()


def test_a_good_list_is_left_alone(tmp_path: Path) -> None:
    run = run_with(tmp_path, 1)
    snapshot = run / "checkpoints" / SNAPSHOT_FILE
    snapshot.write_text("{}")
    assert mend_snapshot(str(run)) is None
    assert snapshot.read_text() == "{}"


def test_a_new_run_has_none(tmp_path: Path) -> None:
    assert mend_snapshot(str(tmp_path / "new")) is None
