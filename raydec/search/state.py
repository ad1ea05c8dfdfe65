"""The state of a search on disk, and its remaining trials."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import OmegaConf

from raydec.config import changed_keys, config_from_dict
from raydec.errors import UserError
from raydec.features.store_cache import absolute_store
from raydec.files.storage import is_uri
from raydec.runs.opening import PLACEMENT_KEYS, refuse_other_kind
from raydec.runs.run_folder import (
    CONFIG_FILE,
    METRICS_FILE,
    SEARCH_FILE,
    RunFolder,
    finished_summary,
    run_location,
)
from raydec.search.config import TuneConfig
from raydec.search.extension import extends, numbered_settings
from raydec.search.ledger import Entry, Ledger
from raydec.search.plan import SearchPlan
from raydec.search.ranking import RunOutcome, TrialState
from raydec.search.score import score_run, trial_curve
from raydec.search.trial_job import Remaining

TRIALS_FOLDER = "trials"

# Keys of the search that do not change its results.
_SEARCH_PLACEMENT_KEYS = ("search.max_concurrent", "search.max_retries", "search.gpus_per_worker")


@dataclass(frozen=True)
class Study:
    """A search and its location.

    Attributes:
        plan: the settings to train.
        name: the search's name.
        location: path or URI of its directory.
        local: its directory on this machine, where results are written; differs from ``location`` for a URI.
    """

    plan: SearchPlan
    name: str
    location: str
    local: Path

    @property
    def trials(self) -> str:
        """Path or URI of the run directories."""
        return f"{self.location}/{TRIALS_FOLDER}"

    def run_folder(self, run: str) -> RunFolder:
        """The directory of one run."""
        return RunFolder(f"{self.trials}/{run}")

    def stored_config(self) -> TuneConfig:
        """The settings as stored in ``search.yaml``: complete, with absolute paths."""
        config = self.plan.config
        store = config.data.store
        data = config.data.model_copy(update={"store": store and absolute_store(store)})
        return config.model_copy(
            update={"name": self.name, "output_dir": str(self.local.parent), "data": data}
        )


def open_study(plan: SearchPlan) -> Study:
    """Locate a search, which may exist already.

    Raises:
        UserError: it exists with other settings, or a run or other directory has its name.
    """
    config = plan.config
    name = config.search_name
    output_dir = Path(config.output_dir).absolute()
    location = run_location(config.model_copy(update={"name": name, "output_dir": str(output_dir)}))
    local = output_dir / name if is_uri(location) else Path(location).absolute()
    study = Study(plan, name, location, local)
    folder = RunFolder(location)
    refuse_other_kind(folder, SEARCH_FILE)
    written = folder.read(SEARCH_FILE)
    if written is not None:
        _refuse_changes(study, written, Ledger(folder).entries())
    return study


def _refuse_changes(study: Study, written: str, begun: Sequence[Entry]) -> None:
    tree = OmegaConf.to_container(OmegaConf.create(written))
    assert isinstance(tree, dict)
    earlier = config_from_dict({str(key): value for key, value in tree.items()}, TuneConfig)
    assert isinstance(earlier, TuneConfig)
    excused = (*PLACEMENT_KEYS, *_SEARCH_PLACEMENT_KEYS)
    differing = changed_keys(earlier, study.stored_config())
    changed = [key for key in differing if not key.startswith(excused)]
    if changed and not extends(earlier, study.plan, changed, begun):
        raise UserError(
            f"search {study.name} exists in {study.location} but differs in {', '.join(changed[:5])}; "
            "choose another name, or use the same settings to resume it (more search.num_samples or "
            "search.seeds, or a wider search.space, extend it)"
        )


def find_remaining(study: Study) -> Remaining:
    """The trials that remain according to the ledger and the run directories, failed trials included."""
    search = study.plan.config.search
    entries = all_entries(study)
    ended = [entry for entry in entries if _has_ended(study, entry)]
    left = [entry for entry in entries if entry not in ended]
    begun = {entry.key for entry in Ledger(RunFolder(study.location)).entries()}
    return Remaining(
        entries=tuple(sorted(left, key=lambda entry: entry.key not in begun)),
        num_new=max(0, search.num_samples - len(entries)) if study.plan.seeds_in_turn else 0,
        past=tuple((entry, trial_curve(_histories(study, entry), search.metric)) for entry in ended),
    )


def all_entries(study: Study) -> list[Entry]:
    """Every trial of the search that is known so far, ordered by number."""
    ledger = Ledger(RunFolder(study.location))
    known = {entry.key: entry for entry in ledger.entries()}
    if not study.plan.seeds_in_turn:
        for number, setting in numbered_settings(study.plan, ledger.entries()):
            for seed, fold in itertools.product(study.plan.config.search.seeds, study.plan.folds or (None,)):
                entry = Entry(number, setting, (seed,), folds=() if fold is None else (fold,))
                known.setdefault(entry.key, entry)
    entries = [_with_current_setting(study, entry) for entry in known.values()]
    return sorted(entries, key=lambda entry: (entry.number, entry.seeds, entry.folds))


def _with_current_setting(study: Study, entry: Entry) -> Entry:
    """The entry with the newest setting: population based training changes settings during a run."""
    if study.plan.config.search.scheduler != "pbt":
        return entry
    written = study.run_folder(entry.run_names[0]).read(CONFIG_FILE)
    if written is None:
        return entry
    config = OmegaConf.create(written)
    return replace(entry, setting={key: OmegaConf.select(config, key) for key in entry.setting})


def _has_ended(study: Study, entry: Entry) -> bool:
    if all(finished_summary(study.run_folder(run)) is not None for run in entry.run_names):
        return True
    return entry.state == "stopped" and bool(_histories(study, entry)[0])


def _histories(study: Study, entry: Entry) -> list[list[dict[str, float | int | None]]]:
    return [read_history(study.run_folder(run)) for run in entry.run_names]


def read_history(folder: RunFolder) -> list[dict[str, float | int | None]]:
    """The metrics of a run's epochs so far."""
    return [json.loads(line) for line in (folder.read(METRICS_FILE) or "").splitlines()]


def collect(study: Study) -> list[RunOutcome]:
    """The outcome of every run of the search so far."""
    return [
        _outcome(study, entry, seed, fold, run)
        for entry in all_entries(study)
        for (seed, fold), run in zip(entry.runs, entry.run_names, strict=True)
    ]


def _outcome(study: Study, entry: Entry, seed: int, fold: str | None, run: str) -> RunOutcome:
    folder = study.run_folder(run)
    summary = finished_summary(folder)
    scored = score_run(read_history(folder), study.plan.config.search.metric)
    state = _state(entry, summary is not None, scored is not None)
    outcome = RunOutcome(run, entry.number, entry.setting, seed, state, fold=fold)
    if summary is not None:
        outcome = replace(
            outcome,
            ccc=summary["ccc"],
            classes=summary.get("classes"),
            test_splits=tuple(summary.get("splits", {}).get("test", summary["ccc"])),
        )
    if state == "failed":
        outcome = replace(outcome, problem=entry.problem)
    if scored is None:
        return outcome
    return replace(
        outcome,
        score=None if state == "failed" else scored.score,
        epochs=scored.epochs,
        best_epoch=scored.best_epoch,
        train_s=scored.train_s,
    )


def _state(entry: Entry, is_finished: bool, has_epochs: bool) -> TrialState:
    if is_finished:
        return "finished"
    if entry.state == "failed" or (entry.state == "stopped" and has_epochs):
        return entry.state
    return "unfinished"
