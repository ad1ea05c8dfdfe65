"""Cross-validation in a search: the same as a loop of single trainings, and no fold missing in silence."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_support import make_store, many, write_corpus
from report_support import TINY

from raydec.config import FoldsConfig, load_config
from raydec.corpus.readers import read_corpus
from raydec.errors import UserError
from raydec.experiment import _fold_names, resolve, train_run
from raydec.features.folds import divide, fold_names
from raydec.features.store import FeatureStore
from raydec.learning.ccc import concordance
from raydec.pages.finished_run import open_run
from raydec.placement import Node
from raydec.ray_runtime import trial as trial_module
from raydec.ray_runtime.search import _spec
from raydec.runs.run_folder import RunFolder
from raydec.search.config import TuneConfig
from raydec.search.events import NullEvents
from raydec.search.ledger import Ledger
from raydec.search.plan import plan_search
from raydec.search.results import conclude
from raydec.search.run import run_study
from raydec.search.state import find_remaining, open_study

SIZES = (5, 2, 4, 3, 2)
THREE = ("fold0", "fold1", "fold2")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Five speakers in splits that cut across them, and some unlabeled speech."""
    folder = tmp_path_factory.mktemp("crossval")
    utterances = [
        replace(spoken, split=("train", "validation", "test1")[number % 3], arousal=1.0 + (5 * number) % 7)
        for speaker, size in enumerate(SIZES)
        for number, spoken in enumerate(many(size, prefix=f"s{speaker}-", speaker=f"s{speaker}"))
    ]
    pool = [replace(spoken, arousal=None) for spoken in many(3, "unlabeled", "x", speaker="s9")]
    return make_store(write_corpus(folder / "audio", [*utterances, *pool]), folder / "store")


class InThisProcess:
    """Trains what a search asks for, one trial after another, without Ray; may be interrupted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int = 99) -> None:
        self._patch = monkeypatch
        self._left = stop_after

    def nodes(self) -> list[Node]:
        return [Node(1.0, 0.0)]

    def check_shared(self, config: object, location: str) -> None:
        pass

    def run_trials(self, plan, job, remaining, ledger: Ledger, events, tune_folder: str) -> None:
        for entry in remaining.entries:
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
            told: list[dict] = []
            self._patch.setattr(trial_module, "tune", _tune(entry.key, told))
            ledger.begin(entry)
            trial_module.drive(job, _spec(entry))
            state = "finished" if told[-1].get("finished") else "failed"
            ledger.end(entry.key, state, problem=told[-1].get("problem"))


def _tune(key: str, told: list[dict]) -> SimpleNamespace:
    """What a trial needs of Ray Tune: its name, and someone to report to."""
    context = SimpleNamespace(get_trial_name=lambda: key)
    return SimpleNamespace(get_context=lambda: context, report=lambda result, **_: told.append(result))


def search(store: FeatureStore, folder: Path, *overrides: str) -> TuneConfig:
    common = (
        "name=cv",
        f"output_dir={folder}",
        f"data.store={store.path}",
        "data.attributes=[arousal]",
        "training.epochs=1",
        "search.searcher=grid",
        "search.folds={by: speaker, k: 3}",
        "search.space={model.kind: [regressor, deepemocluster]}",
    )
    config = load_config(None, [*TINY, *common, *overrides], TuneConfig)
    assert isinstance(config, TuneConfig)
    return config


def run_search(config: TuneConfig, monkeypatch: pytest.MonkeyPatch, stop_after: int = 99):
    study = open_study(plan_search(config, _fold_names(config)))
    remaining = find_remaining(study)
    if remaining.num_trials:
        assert config.data.store is not None
        run_study(study, remaining, NullEvents(), InThisProcess(monkeypatch, stop_after), config.data.store)
    return study, remaining, conclude(study)


def test_folds_are_speaker_disjoint_balanced_and_the_same_every_time(store: FeatureStore) -> None:
    folds = divide(store, FoldsConfig(by="speaker", k=3))
    pairs = set(
        zip(folds.utterances["speaker"].to_pylist(), folds.utterances["split"].to_pylist(), strict=True)
    )
    assert pairs == {
        ("s0", "fold0"), ("s2", "fold1"), ("s3", "fold2"), ("s1", "fold2"), ("s4", "fold1"),
        ("s9", "unlabeled"),
    }  # fmt: skip
    assert fold_names(store, FoldsConfig(by="speaker", k=3)) == ("fold0", "fold1", "fold2")
    assert fold_names(store, FoldsConfig(by="speaker")) == tuple(f"fold{i}" for i in range(5))
    assert fold_names(store, FoldsConfig(by="split")) == ("fold0", "fold1", "fold2")
    assert store.splits == ("train", "validation", "test1", "unlabeled"), "the store itself was changed"
    reopened = folds.__reduce__()
    assert reopened[0](*reopened[1]).splits == folds.splits


@pytest.mark.parametrize(
    "by, k, problem",
    [
        ("session", 3, r"has no such column; it has utterance_id"),
        ("speaker", 6, r"has 5 different values, but 6 folds need as many"),
        ("emotion", None, r"16 utterances of .* have no emotion"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(
    store: FeatureStore, by: str, k: int | None, problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        divide(store, FoldsConfig(by=by, k=k))


@pytest.mark.parametrize(
    "override, problem",
    [
        ("search.scheduler=asha", "asha may omit folds"),
        ("data.test_split=test1", r"leave data\.test_split unset"),
        ("search.folds={by: speaker, k: 2}", "greater than or equal to 3"),
    ],
)
def test_what_does_not_go_with_folds_is_refused(
    store: FeatureStore, tmp_path: Path, override: str, problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        plan_search(search(store, tmp_path, "training.epochs=5", override), THREE)


def test_a_cross_validation_equals_a_loop_of_single_trainings(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = search(store, tmp_path)
    # Interrupted after two of the six runs: the pooled score waits for the rest.
    with pytest.raises(KeyboardInterrupt):
        run_search(config, monkeypatch, stop_after=2)
    study = open_study(plan_search(config, _fold_names(config)))
    conclude(study)
    partial = json.loads((study.local / "crossval.json").read_text())
    assert all(score["estimate"] is None and score["missing"] for score in partial)
    assert "missing: 0000-s31-fold2" in (study.local / "crossval.md").read_text()
    study, remaining, results = run_search(config, monkeypatch)
    assert len(remaining.entries) == 4 and not find_remaining(study).num_trials

    scores = {score["setting"]: score for score in json.loads((study.local / "crossval.json").read_text())}
    for kind in ("regressor", "deepemocluster"):
        rows = loop_of_trainings(store, tmp_path / "loop", kind, "{by: speaker, k: 3}", THREE)
        estimate = scores[f"kind={kind}"]["estimate"]
        assert estimate["ccc"] == pytest.approx(pooled_ccc(rows), abs=1e-12)
        assert (estimate["num_utterances"], estimate["num_units"]) == (16, 5)
        assert {row["speaker"] for row in rows} == {"s0", "s1", "s2", "s3", "s4"}
    _check_statistics(store, tmp_path / "loop" / "regressor-fold0", rest="fold2")
    differences = [score["difference"] for score in scores.values()]
    assert [difference is None for difference in differences] == [True, False]
    first, second = scores.values()
    expected = second["estimate"]["ccc"] - first["estimate"]["ccc"]
    assert differences[1]["difference"] == pytest.approx(expected)
    assert results.ranking[0].test.keys() == {"folds"} and results.ranking[0].test["folds"].num_values == 3


def loop_of_trainings(
    store: FeatureStore, folder: Path, kind: str, folds: str, names: Sequence[str], *overrides: str
) -> list[dict]:
    """Test predictions of single trainings, one per fold, each choosing its epoch on the next fold."""
    rows = []
    for index, fold in enumerate(names):
        chooser = names[(index + 1) % len(names)]
        rest = [name for name in names if name not in (fold, chooser)]
        single = load_config(
            None,
            [
                *TINY, f"name={kind}-{fold}", f"output_dir={folder}", f"data.store={store.path}",
                "data.attributes=[arousal]", "training.epochs=1", f"model.kind={kind}",
                f"data.folds={folds}", f"data.train_split=[{','.join(rest)}]",
                f"data.validation_split={chooser}", f"data.test_split={fold}", *overrides,
            ],
        )  # fmt: skip
        table = pq.read_table(train_run(resolve(single)).folder / "predictions.parquet").to_pylist()
        rows += [row for row in table if row["split"] == fold]
    return rows


def pooled_ccc(rows: Sequence[Mapping[str, float]]) -> float:
    predicted, labels = (np.array([row[name] for row in rows]) for name in ("arousal_predicted", "arousal"))
    return concordance(predicted, labels)


def _check_statistics(store: FeatureStore, folder: Path, rest: str) -> None:
    """Normalisation is that of the rows of the training fold, in the model too."""
    divided = divide(store, FoldsConfig(by="speaker", k=3))
    rows = divided.rows(rest)
    trained = open_run(folder).trained
    frames = np.log(np.concatenate([divided.frames(row) for row in rows]).astype(np.float64) + 1e-6)
    np.testing.assert_allclose(trained.feature_mean, frames.mean(axis=0), rtol=1e-4)
    labels = np.array([divided.utterances["arousal"][int(row)].as_py() for row in rows])
    assert trained.networks[0][0].label_mean == pytest.approx([labels.mean()])


REAL = {"emodb": ("{by: speaker, k: null}", 10, 535, 10), "ravdess": ("{by: speaker, k: 6}", 6, 1440, 24)}


@pytest.mark.slow
@pytest.mark.speech
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("corpus", REAL)
def test_on_recorded_speech_it_equals_the_loop_too(
    corpus: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EmoDB leaving one speaker out, RAVDESS in six folds; no speaker is tested by a model that heard it."""
    if corpus == "emodb":
        folder = request.getfixturevalue("speech_dir") / corpus
    else:
        folder = request.getfixturevalue("ravdess_dir")
    folds, num_folds, num_utterances, num_speakers = REAL[corpus]
    store = make_store(read_corpus(folder), tmp_path / "store")
    small = (
        "model.channels=[4,4,4,4,4]", "features.num_chunks=2", "training.chunks_per_utterance=1",
        "training.batch_utterances=64",
    )  # fmt: skip
    config = search(store, tmp_path, f"search.folds={folds}", *small)
    study, _, _ = run_search(config, monkeypatch)
    scores = {score["setting"]: score for score in json.loads((study.local / "crossval.json").read_text())}
    names = [f"fold{number}" for number in range(num_folds)]
    for kind in ("regressor", "deepemocluster"):
        rows = loop_of_trainings(store, tmp_path / "loop", kind, folds, names, *small)
        estimate = scores[f"kind={kind}"]["estimate"]
        assert estimate["ccc"] == pytest.approx(pooled_ccc(rows), abs=1e-12)
        assert (estimate["num_utterances"], estimate["num_units"]) == (num_utterances, num_speakers)
        assert len({row["utterance_id"] for row in rows}) == num_utterances
        folds_of_speakers = {(row["speaker"], row["split"]) for row in rows}
        assert len(folds_of_speakers) == num_speakers


def test_the_ledger_keeps_the_folds(tmp_path: Path, store: FeatureStore) -> None:
    plan = plan_search(search(store, tmp_path), THREE)
    assert plan.num_trials == 6
    study = open_study(plan)
    folder = RunFolder(study.location)
    folder.create()
    ledger = Ledger(folder)
    for entry in find_remaining(study).entries:
        ledger.begin(entry)
    assert [entry.run_names for entry in Ledger(folder).entries()][:2] == [
        ("0000-s31-fold0",), ("0000-s31-fold1",),
    ]  # fmt: skip
    assert len(find_remaining(study).entries) == 6
