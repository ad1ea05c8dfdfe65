"""The results of a search: a ranked table, the best model, and their files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raydec.files.atomic import point_link
from raydec.files.markdown import markdown_table
from raydec.runs.run_folder import CONFIG_FILE, MODEL_FOLDER, RunFolder
from raydec.search.crossval import write_crossval
from raydec.search.paper_table import write_comparison
from raydec.search.ranking import (
    RankedSetting,
    RunOutcome,
    best_run,
    rank_settings,
    table,
    to_csv,
    to_json,
)
from raydec.search.state import TRIALS_FOLDER, Study, collect
from raydec.version import __version__

RESULTS = "results"
BEST_LINK, HPARAMS_FOLDER, REPORT_FILE = "best", "hparams", "report.html"


@dataclass(frozen=True)
class SearchResults:
    """The results of a search.

    Attributes:
        study: the search and its location.
        ranking: all settings, best first.
        best: the best run; None if no run has a score.
        comparisons: the paper's table for every test split, if a baseline was among the settings; for a
            cross-validation, the table of its pooled scores.
        already_finished: whether earlier calls had finished the search, so that nothing was trained.
    """

    study: Study
    ranking: list[RankedSetting]
    best: RunOutcome | None
    comparisons: list[Path]
    already_finished: bool = False

    @property
    def best_model(self) -> Path | None:
        """The best model directory."""
        return None if self.best is None else self.study.local / BEST_LINK

    @property
    def all_failed(self) -> bool:
        """Whether every trial failed."""
        return all(run.state == "failed" for entry in self.ranking for run in entry.runs)


def conclude(study: Study, *, already_finished: bool = False) -> SearchResults:
    """Rank the settings and write the results."""
    search = study.plan.config.search
    ranking = rank_settings(collect(study), search.mode)
    best = best_run(ranking, search.mode)
    if best is not None:
        _link_best(study, best)
    _write(study, ranking, best)
    if study.plan.folds:
        tables = write_crossval(study, ranking)
    else:
        tables = write_comparison(study, ranking)
    return SearchResults(study, ranking, best, tables, already_finished)


def _write(study: Study, ranking: Sequence[RankedSetting], best: RunOutcome | None) -> None:
    search, keys = study.plan.config.search, study.plan.keys
    study.local.mkdir(parents=True, exist_ok=True)
    document = to_json(
        ranking,
        name=study.name,
        metric=search.metric,
        mode=search.mode,
        keys=list(keys),
        seeds=list(search.seeds),
        confidence="95%, Student's t over seeds" + (" and folds" if study.plan.folds else ""),
        trials_folder=study.trials,
        best_run=best.run if best else None,
        raydec_version=__version__,
    )
    texts = {
        f"{RESULTS}.md": f"# {study.name}\n\n{markdown_table(*table(ranking, keys, search.metric))}\n",
        f"{RESULTS}.csv": to_csv(ranking, keys),
        f"{RESULTS}.json": document,
    }
    # At the search's location, and on this machine if that is elsewhere.
    for location in dict.fromkeys([study.location, str(study.local)]):
        kept = RunFolder(location)
        for name, text in texts.items():
            kept.write(name, text)
        kept.sync()


def _link_best(study: Study, best: RunOutcome) -> None:
    """Point ``best`` at the best model directory, atomically."""
    run = study.local / TRIALS_FOLDER / best.run
    study.run_folder(best.run).fetch(run)
    point_link(study.local / BEST_LINK, Path(TRIALS_FOLDER, best.run, MODEL_FOLDER))


def retraining_command(study: Study, best: RunOutcome) -> str:
    """A command that trains the best setting again, in a new run directory."""
    config = study.local / TRIALS_FOLDER / best.run / CONFIG_FILE
    storage = study.plan.config.storage_path
    words = ["python", "-m", "raydec.train", str(config), f"name={study.name}-best"]
    words += [f"output_dir={study.local.parent}", *([f"storage_path={storage}"] if storage else [])]
    return " ".join(map(shlex.quote, words))
