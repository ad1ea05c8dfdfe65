"""Prints the results of a search."""

from __future__ import annotations

from collections.abc import Sequence

from raydec.console.terminal import note, out
from raydec.search.ranking import RankedSetting, describe_setting, table, to_text
from raydec.search.results import (
    HPARAMS_FOLDER,
    REPORT_FILE,
    RESULTS,
    SearchResults,
    retraining_command,
)


def print_search(results: SearchResults) -> None:
    """Print the ranked table, the failures, the best model and the paths of the written files."""
    study = results.study
    if results.already_finished:
        note(f"search {study.name} had already finished; its results:")
    ranking, best, mode = results.ranking, results.best, study.plan.config.search.mode
    header, rows = table(ranking, study.plan.keys, study.plan.config.search.metric)
    title = f"Search {study.name}: {mode} {study.plan.config.search.metric}"
    out.print(f"\n{title}\n\n{to_text(header, rows)}", markup=False)
    _print_failures(ranking)
    for path in results.comparisons if study.plan.folds else []:
        out.print(path.read_text(encoding="utf-8"), markup=False)
    if best is not None:
        out.print(f"best model      {results.best_model}  ({describe_setting(best.setting)})", markup=False)
        out.print(f"train it again  {retraining_command(study, best)}", markup=False)
    out.print(f"results         {study.local / f'{RESULTS}.md'}, .csv, .json", markup=False)
    out.print(f"report          {study.local / REPORT_FILE}", markup=False)
    out.print(f"TensorBoard     tensorboard --logdir {study.local / HPARAMS_FOLDER}", markup=False)
    for path in results.comparisons:
        if study.plan.folds:
            out.print(f"pooled folds    {path}, .json", markup=False)
        else:
            out.print(f"comparison      {path}, .csv, .tex", markup=False)


def _print_failures(ranking: Sequence[RankedSetting]) -> None:
    failed = [run for entry in ranking for run in entry.runs if run.state == "failed"]
    for run in failed:
        out.print(f"failed: {run.run} ({describe_setting(run.setting)}): {run.problem}", markup=False)
    if failed:
        out.print(f"{len(failed)} trials failed; run the same command again to retry them", markup=False)
