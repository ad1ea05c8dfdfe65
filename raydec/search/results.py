"""The end of a search: a ranked table, the best model, and the files that keep them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from raydec import __version__
from raydec.console.terminal import out
from raydec.pages.search_report import write_hparams, write_search_report
from raydec.runs.run_folder import CONFIG_FILE, MODEL_FOLDER, RunFolder
from raydec.search.paper_table import write_comparison
from raydec.search.ranking import (
    RankedSetting,
    RunOutcome,
    best_run,
    describe_setting,
    rank_settings,
    table,
    to_csv,
    to_json,
    to_markdown,
    to_text,
)
from raydec.search.state import TRIALS_FOLDER, Study, collect

RESULTS = "results"
BEST_LINK, HPARAMS_FOLDER, REPORT_FILE = "best", "hparams", "report.html"


def conclude(study: Study) -> list[RankedSetting]:
    """Rank what was trained, write it down and print it.

    Returns:
        All settings, best first.
    """
    search = study.plan.config.search
    ranking = rank_settings(collect(study), search.mode)
    best = best_run(ranking, search.mode)
    if best is not None:
        _link_best(study, best)
    _write(study, ranking, best)
    _print(study, ranking, best, search.mode)
    write_comparison(study, ranking)
    return ranking


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
        confidence="95%, Student's t over seeds",
        trials_folder=study.trials,
        best_run=best.run if best else None,
        raydec_version=__version__,
    )
    texts = {
        f"{RESULTS}.md": f"# {study.name}\n\n{to_markdown(*table(ranking, keys, search.metric))}",
        f"{RESULTS}.csv": to_csv(ranking, keys),
        f"{RESULTS}.json": document,
    }
    # Where the search is kept, and on this machine where that is elsewhere.
    for location in dict.fromkeys([study.location, str(study.local)]):
        kept = RunFolder(location)
        for name, text in texts.items():
            kept.write(name, text)
        kept.sync()
    write_search_report(study.local / REPORT_FILE, study.name, search.metric, keys, ranking)
    write_hparams(study.local / HPARAMS_FOLDER, search.metric, ranking)


def _link_best(study: Study, best: RunOutcome) -> None:
    """Point ``best`` at the best model directory; whoever looks sees the old or the new one."""
    run = study.local / TRIALS_FOLDER / best.run
    study.run_folder(best.run).fetch(run)
    arriving = study.local / f".{BEST_LINK}.arriving"
    arriving.unlink(missing_ok=True)
    arriving.symlink_to(Path(TRIALS_FOLDER, best.run, MODEL_FOLDER), target_is_directory=True)
    os.replace(arriving, study.local / BEST_LINK)


def _print(
    study: Study, ranking: Sequence[RankedSetting], best: RunOutcome | None, mode: Literal["max", "min"]
) -> None:
    header, rows = table(ranking, study.plan.keys, study.plan.config.search.metric)
    title = f"Search {study.name}: {mode} {study.plan.config.search.metric}"
    out.print(f"\n{title}\n\n{to_text(header, rows)}", markup=False)
    _print_failures(ranking)
    if best is not None:
        out.print(
            f"best model      {study.local / BEST_LINK}  ({describe_setting(best.setting)})", markup=False
        )
        out.print(f"train it again  {retraining_command(study, best)}", markup=False)
    out.print(f"results         {study.local / f'{RESULTS}.md'}, .csv, .json", markup=False)
    out.print(f"report          {study.local / REPORT_FILE}", markup=False)
    out.print(f"TensorBoard     tensorboard --logdir {study.local / HPARAMS_FOLDER}", markup=False)


def _print_failures(ranking: Sequence[RankedSetting]) -> None:
    failed = [run for entry in ranking for run in entry.runs if run.state == "failed"]
    for run in failed:
        out.print(f"failed: {run.run} ({describe_setting(run.setting)}): {run.problem}", markup=False)
    if failed:
        out.print(f"{len(failed)} trials failed; the same command tries them again", markup=False)


def retraining_command(study: Study, best: RunOutcome) -> str:
    """A command that trains the best setting by itself, to another directory."""
    config = study.local / TRIALS_FOLDER / best.run / CONFIG_FILE
    storage = study.plan.config.storage_path
    words = ["python", "-m", "raydec.train", str(config), f"name={study.name}-best"]
    words += [f"output_dir={study.local.parent}", *([f"storage_path={storage}"] if storage else [])]
    return " ".join(map(shlex.quote, words))
