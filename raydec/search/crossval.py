"""The results of a cross-validation: every setting, scored on the pooled test predictions of all folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydec.evaluation.statistics import CccDifference, CccEstimate, bootstrap_ccc, compare_ccc
from raydec.files.markdown import markdown_table
from raydec.learning.randomness import generator_for
from raydec.runs.run_folder import PREDICTIONS_FILE, RunFolder
from raydec.search.ranking import RankedSetting, describe_setting
from raydec.search.state import TRIALS_FOLDER, Study

CROSSVAL = "crossval"
NUM_RESAMPLES = 2000
_SUFFIX = "_predicted"


@dataclass(frozen=True)
class PooledScore:
    """One attribute of one setting, over the test predictions of all folds.

    Attributes:
        number: the setting's number.
        setting: description of the setting.
        attribute: the predicted attribute.
        missing: runs without a result; if there are any, there is no score.
        estimate: CCC over all folds' utterances (mean over seeds), with an interval over all speakers.
        difference: difference from the setting that validation ranks first, which has None itself.
    """

    number: int
    setting: str
    attribute: str
    missing: tuple[str, ...]
    estimate: CccEstimate | None
    difference: CccDifference | None


def cross_validate(study: Study, ranking: Sequence[RankedSetting]) -> list[PooledScore]:
    """Score every setting, in the order of the ranking, and compare the others with the first."""
    pooled = [_pool(study, entry) for entry in ranking]
    complete = [tables for tables in pooled if tables]
    attributes = _attributes(complete[0][0]) if complete else []
    scores = []
    for attribute in attributes or ["-"]:
        reference = pooled[0] or None if pooled else None
        for entry, tables in zip(ranking, pooled, strict=True):
            missing = tuple(run.run for run in entry.runs if run.ccc is None)
            estimate = _estimate(tables, attribute) if tables else None
            difference = None
            if tables and reference and tables is not reference:
                difference = _difference(tables, reference, attribute)
            name = describe_setting(entry.setting)
            scores.append(PooledScore(entry.number, name, attribute, missing, estimate, difference))
    return scores


def write_crossval(study: Study, ranking: Sequence[RankedSetting]) -> list[Path]:
    """Write ``crossval.md`` and ``crossval.json`` if the search is a cross-validation.

    Returns:
        The Markdown file, if it was written.
    """
    if not study.plan.folds:
        return []
    scores = cross_validate(study, ranking)
    folder = RunFolder(str(study.local))
    title = f"# {study.name}: {len(study.plan.folds)} folds by {_folds_by(study)}"
    folder.write(f"{CROSSVAL}.md", f"{title}\n\n{crossval_markdown(scores)}")
    folder.write_json(f"{CROSSVAL}.json", [asdict(score) for score in scores])
    return [study.local / f"{CROSSVAL}.md"]


def crossval_markdown(scores: Sequence[PooledScore]) -> str:
    """A table with a row per attribute and setting, and an explanation."""
    header = ["setting", "attribute", "CCC", "95% interval", "utterances", "over", "difference", "95%", "p"]
    rows = [[score.setting, score.attribute, *_cells(score)] for score in scores]
    return (
        f"{markdown_table(header, rows)}\n\nThe test predictions of all folds are pooled and scored "
        "once; several seeds give the mean of their CCC. Intervals: bootstrap over all speakers. "
        "Differences are from the setting that validation ranks first, paired on the same utterances.\n"
    )


def _cells(score: PooledScore) -> list[str]:
    estimate, difference = score.estimate, score.difference
    if estimate is None:
        return [f"missing: {', '.join(score.missing)}", *[""] * 6]
    cells = [f"{estimate.ccc:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}"]
    cells += [str(estimate.num_utterances), f"{estimate.num_units} {estimate.unit}s"]
    if difference is None:
        return [*cells, "", "", ""]
    interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return [*cells, f"{difference.difference:+.4f}", interval, f"{difference.p_value:.4f}"]


def _folds_by(study: Study) -> str:
    folds = study.plan.config.search.folds
    return "" if folds is None else folds.by


def _pool(study: Study, entry: RankedSetting) -> list[pa.Table]:
    """A table of test predictions per seed, with every utterance once; empty if a run is missing."""
    if any(run.ccc is None for run in entry.runs):
        return []
    by_seed: dict[int, list[pa.Table]] = {}
    for run in entry.runs:
        local = study.local / TRIALS_FOLDER / run.run
        study.run_folder(run.run).fetch(local)
        table = pq.read_table(local / PREDICTIONS_FILE)
        by_seed.setdefault(run.seed, []).append(table.filter(pc.equal(table["split"], run.fold)))
    tables = [pa.concat_tables(parts).sort_by("utterance_id") for parts in by_seed.values()]
    for table in tables:
        ids = table["utterance_id"]
        assert pc.count_distinct(ids).as_py() == len(ids), "an utterance was tested twice"
        assert ids.equals(tables[0]["utterance_id"]), "seeds were tested on different utterances"
    return tables


def _attributes(table: pa.Table) -> list[str]:
    names = [name.removesuffix(_SUFFIX) for name in table.column_names if name.endswith(_SUFFIX)]
    return [name for name in names if name in table.column_names and _is_number(table, name)]


def _is_number(table: pa.Table, name: str) -> bool:
    return pa.types.is_floating(table.schema.field(name).type)


def _scores(tables: Sequence[pa.Table], attribute: str) -> np.ndarray:
    return np.stack([table[f"{attribute}{_SUFFIX}"].to_numpy().astype(np.float64) for table in tables])


def _estimate(tables: Sequence[pa.Table], attribute: str) -> CccEstimate | None:
    first = tables[0]
    if f"{attribute}{_SUFFIX}" not in first.column_names:
        return None
    return bootstrap_ccc(
        _scores(tables, attribute),
        first[attribute].to_numpy().astype(np.float64),
        first["speaker"].to_pylist(),
        generator_for(0, "crossval", attribute),
        num_resamples=NUM_RESAMPLES,
    )


def _difference(
    tables: Sequence[pa.Table], reference: Sequence[pa.Table], attribute: str
) -> CccDifference | None:
    first = tables[0]
    same = first["utterance_id"].equals(reference[0]["utterance_id"])
    if not same or any(f"{attribute}{_SUFFIX}" not in one[0].column_names for one in (tables, reference)):
        return None
    return compare_ccc(
        _scores(tables, attribute),
        _scores(reference, attribute),
        first[attribute].to_numpy().astype(np.float64),
        first["speaker"].to_pylist(),
        generator_for(0, "crossval", attribute),
        num_resamples=NUM_RESAMPLES,
    )
