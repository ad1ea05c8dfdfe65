"""Training that diverges to non-finite values stops immediately with a message."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from report_support import TINY
from stores import make_store

from raydec.config import Config, load_config
from raydec.console.terminal import run_entry_point
from raydec.errors import DivergedError
from raydec.experiment import resolve, train_run
from raydec.learning.step import StepRunner
from raydec.placement import Placement
from raydec.ray_runtime import trial
from raydec.runs.run_folder import RunFolder, json_line
from raydec.search.trial_job import TrialJob
from raydec.train import main as train_main


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("diverging"))


def arguments(store: Path, folder: Path, *overrides: str) -> list[str]:
    return [
        *TINY,
        f"output_dir={folder}",
        f"data.store={store}",
        "name=wild",
        "training.epochs=2",
        "training.schedule=two_stage",
        *overrides,
    ]


def settings(store: Path, folder: Path, *overrides: str) -> Config:
    return resolve(load_config(None, arguments(store, folder, *overrides)))


@pytest.mark.parametrize("kind", ["regressor", "autoencoder", "deepemocluster"])
def test_a_rate_that_is_too_high_ends_the_run_with_one_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    wild = ("training.recipe=reference", "training.sgd_learning_rate=1e30", f"model.kind={kind}")
    assert run_entry_point(train_main, arguments(store, tmp_path, *wild)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "error: training of wild diverged at epoch 1, " in said
    assert "no epoch was finished. Under another name, lower training.sgd_learning_rate=1e+30" in said
    assert not (tmp_path / "wild" / "summary.json").exists()
    assert not (tmp_path / "wild" / "model").exists(), "a diverged epoch is the best"


def poisoned(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int) -> None:
    run = StepRunner.run

    def with_poison(self: StepRunner, batch: object, **place: object) -> object:
        losses = run(self, batch, **place)  # type: ignore[arg-type]
        if (place["epoch"], place["stage"], place["step"]) == (epoch, "labeled", step):
            with torch.no_grad():
                next(self._network.parameters()).fill_(torch.nan)
        return losses

    monkeypatch.setattr(StepRunner, "run", with_poison)


def test_the_step_is_named_and_the_last_good_epoch_is_kept(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_run(settings(store, tmp_path, "name=whole"))
    poisoned(monkeypatch, epoch=1, step=0)
    with pytest.raises(DivergedError, match=r"epoch 2, step 2 of 2 of the labeled stage: loss_\w+ is nan; "
                       r"the checkpoint of epoch 1 is kept"):  # fmt: skip
        train_run(settings(store, tmp_path))
    lines = (tmp_path / "wild" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1]
    monkeypatch.undo()
    again = train_run(settings(store, tmp_path))
    assert again.summary == whole.summary


def test_weights_spoiled_by_the_last_step_of_an_epoch_do_not_become_its_checkpoint(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, epoch=0, step=1)
    with pytest.raises(
        DivergedError, match=r"epoch 1, step 2 of 2 of the labeled stage: weights are not finite"
    ):
        train_run(settings(store, tmp_path))
    assert not list((tmp_path / "wild").glob("checkpoints/epoch-*"))


def test_a_trial_that_diverged_fails_by_name_and_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict] = []
    context = SimpleNamespace(get_trial_name=lambda: "0003-s31")
    monkeypatch.setattr(
        trial, "tune", SimpleNamespace(get_context=lambda: context, report=lambda result: told.append(result))
    )

    def diverge(config: Config, *_: object) -> None:
        raise DivergedError(f"training of {config.name} diverged at epoch 2")

    monkeypatch.setattr(trial, "train_trial", diverge)
    share = Placement(0, 1, False, 0.0, 0.0, 1)
    job = TrialJob(load_config(None, ["data.store=x"]), share, "valid/ccc", None)
    trial.drive(job, {"number": 0, "setting": {}, "seeds": [31]})
    assert [result["problem"] for result in told] == ["training of 0003-s31 diverged at epoch 2"]


def test_files_never_hold_what_is_not_json(tmp_path: Path) -> None:
    record = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": -float("inf")}, "e": None}
    known = {"a": None, "b": [1.0, None], "c": {"d": None}, "e": None}
    refuse = {"parse_constant": lambda name: pytest.fail(f"{name} is not JSON")}
    assert json.loads(json_line(record), **refuse) == known
    folder = RunFolder(str(tmp_path))
    folder.write_json("summary.json", record)
    folder.write_json_lines("metrics.jsonl", [record, record])
    assert json.loads((tmp_path / "summary.json").read_text(), **refuse) == known
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, **refuse) for line in lines] == [known, known]
