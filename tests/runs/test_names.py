"""The meaning of a run's name: a run to be resumed, a finished run, or something else."""

import shutil
from pathlib import Path

import pytest
from report_support import TINY
from stores import make_store

from raydec.config import Config, load_config
from raydec.errors import TakenOverError, UserError
from raydec.experiment import resolve, train_run
from raydec.learning.training import Training
from raydec.model.directory import load_model
from raydec.pages.finished_run import open_run
from raydec.runs.opening import begin
from raydec.runs.run_folder import RunFolder
from raydec.runs.training_loop import train_here
from raydec.search.config import TuneConfig
from raydec.search.plan import plan_search
from raydec.search.state import open_study


class Killed(BaseException):
    """Simulates the end of the process."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("base"), num_unlabeled=0)


def settings(store: Path, folder: Path, *overrides: str) -> Config:
    places = (f"output_dir={folder}", f"data.store={store}")
    return load_config(None, [*TINY, "training.epochs=2", *places, *overrides])


def test_an_unnamed_run_is_resumed_and_only_a_finished_one_makes_way(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_run(resolve(settings(store, tmp_path, "name=whole")))
    checkpoint = Training._checkpoint

    def cut_off(self: Training, *arguments: object) -> None:
        checkpoint(self, *arguments)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(Training, "_checkpoint", cut_off)
    with pytest.raises(Killed):
        train_run(resolve(settings(store, tmp_path)))
    monkeypatch.undo()
    resumed = train_run(resolve(settings(store, tmp_path)))
    assert resumed.folder.name == "store"
    groups = (resumed.folder / "workers.jsonl").read_text().splitlines()
    assert len(groups) == 2 and '"epoch": 1' in groups[1], "it began again instead of going on"
    assert resumed.summary["ccc"] == whole.summary["ccc"]
    assert resolve(settings(store, tmp_path)).name == "store-2"


def test_an_unfinished_run_of_other_settings_is_left_alone(store: Path, tmp_path: Path) -> None:
    begin(resolve(settings(store, tmp_path)))
    assert resolve(settings(store, tmp_path, "seed=7")).name == "store-2"
    assert resolve(settings(store, tmp_path, "training.epochs=5")).name == "store-2"
    # Placement does not affect the results.
    assert resolve(settings(store, tmp_path, "training.keep_checkpoints=5")).name == "store"


def test_the_first_unfinished_of_several_is_resumed(store: Path, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        begin(resolve(settings(store, tmp_path, f"seed={seed}")))
    (tmp_path / "store" / "summary.json").write_text("{}")
    assert [resolve(settings(store, tmp_path, f"seed={seed}")).name for seed in (1, 2, 3)] == [
        "store-4", "store-2", "store-3",
    ]  # fmt: skip


def search(store: Path, folder: Path, *overrides: str) -> TuneConfig:
    places = (f"output_dir={folder}", f"data.store={store}")
    config = load_config(None, [*TINY, *places, *overrides], TuneConfig)
    assert isinstance(config, TuneConfig)
    return config


def test_a_search_does_not_take_the_name_of_a_run(store: Path, tmp_path: Path) -> None:
    begin(resolve(settings(store, tmp_path, "name=base")))
    with pytest.raises(UserError, match=r"base is a training run; choose another name"):
        open_study(plan_search(search(store, tmp_path, "name=base")))
    assert not (tmp_path / "base" / "search.yaml").exists()


@pytest.mark.parametrize(
    "marker, kind",
    [("search.yaml", "a search"), ("store.json", "a feature store"), ("config.json", "a model directory")],
)
def test_a_run_does_not_take_the_name_of_anything_else(
    store: Path, tmp_path: Path, marker: str, kind: str
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / marker).write_text("{}")
    with pytest.raises(UserError, match=rf"base is {kind}; choose another name"):
        begin(resolve(settings(store, tmp_path, "name=base")))
    assert [entry.name for entry in (tmp_path / "base").iterdir()] == [marker]


def test_an_unnamed_run_goes_around_a_search(store: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "search.yaml").write_text("{}")
    assert resolve(settings(store, tmp_path)).name == "store-2"


def test_a_folder_of_another_kind_is_named_with_the_one_that_is_wanted(store: Path, tmp_path: Path) -> None:
    run = train_run(resolve(settings(store, tmp_path, "name=run", "training.epochs=1"))).folder
    with pytest.raises(UserError, match=r"run is a run directory, not a model directory; name .*run/model"):
        load_model(run)
    with pytest.raises(UserError, match=r"run/model is not a run directory, but part of one; name .*/run"):
        open_run(run / "model")
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "search.yaml").write_text("{}")
    shutil.copytree(run / "model", tmp_path / "found" / "best")
    with pytest.raises(UserError, match=r"found is a search, not a model directory; name .*found/best"):
        load_model(tmp_path / "found")
    with pytest.raises(UserError, match=r"found is a search .* name a run under .*found/trials"):
        open_run(tmp_path / "found")


def test_a_restarted_worker_of_a_run_that_was_taken_over_restores_nothing(
    store: Path, tmp_path: Path
) -> None:
    """Ray's older releases restart it; the checkpoint that it knows of may be gone by then."""
    config = resolve(settings(store, tmp_path, "name=twice", "ray.num_workers=0"))
    train_run(config)
    folder = RunFolder(str(tmp_path / "twice"))
    folder.take()
    earlier = folder.claim
    folder.take()
    before = (tmp_path / "twice" / "metrics.jsonl").read_bytes()
    for state in (tmp_path / "twice" / "checkpoints").glob("*/state.json"):
        state.unlink()
    with pytest.raises(TakenOverError, match="has taken over the run"):
        train_here(config, folder.location, earlier)
    assert (tmp_path / "twice" / "metrics.jsonl").read_bytes() == before
