"""Writes the paper's table of results at the end of a search that trains baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raydec.evaluation import comparison
from raydec.evaluation.comparison import Cell
from raydec.runs.run_folder import PREDICTIONS_FILE, RunFolder
from raydec.search.ranking import RankedSetting
from raydec.search.state import TRIALS_FOLDER, Study

COMPARISON = "comparison"


def write_comparison(study: Study, ranking: Sequence[RankedSetting]) -> list[Path]:
    """Write ``comparison-SPLIT.{md,csv,tex}`` for every test split, if a baseline was among the settings.

    Returns:
        The Markdown files.
    """
    cells = [_cell(study, entry) for entry in sorted(ranking, key=lambda entry: entry.number)]
    if not any(cell.is_baseline for cell in cells):
        return []
    folder = RunFolder(str(study.local))
    written = []
    for split in _test_splits(ranking):
        rows = comparison.compare_cells(cells, split)
        texts = {
            "md": f"# {study.name} on {split}\n\n{comparison.to_markdown(rows)}",
            "csv": comparison.to_csv(rows),
            "tex": comparison.to_latex(rows),
        }
        for ending, text in texts.items():
            folder.write(f"{COMPARISON}-{split}.{ending}", text)
        written.append(study.local / f"{COMPARISON}-{split}.md")
    return written


def _cell(study: Study, entry: RankedSetting) -> Cell:
    finished = [run for run in entry.runs if run.ccc is not None]
    return Cell(
        entry.setting,
        [_predictions(study, run.run) for run in sorted(finished, key=lambda run: run.seed)],
        len(entry.runs) - len(finished),
    )


def _predictions(study: Study, run: str) -> Path:
    local = study.local / TRIALS_FOLDER / run
    study.run_folder(run).fetch(local)
    return local / PREDICTIONS_FILE


def _test_splits(ranking: Sequence[RankedSetting]) -> list[str]:
    return sorted({split for entry in ranking for run in entry.runs for split in run.test_splits})
