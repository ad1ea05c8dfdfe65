"""Ranks settings by their score over seeds, and writes the ranking as tables, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy import stats

CONFIDENCE = 0.95
ALL_FOLDS = "folds"
"""Name of the mean over the test folds, which differs from the CCC of the pooled predictions."""

TrialState = Literal["finished", "stopped", "failed", "unfinished"]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        mean: the mean.
        low: lower end of the 95% confidence interval by Student's t; None with a single value.
        high: its upper end.
        num_values: number of values averaged.
    """

    mean: float
    low: float | None
    high: float | None
    num_values: int

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {self.high - self.mean:.4f}"


@dataclass(frozen=True)
class RunOutcome:
    """One run of the search: a setting trained with a seed.

    Attributes:
        run: name of its directory under ``trials``.
        number: number of its setting.
        setting: dotted config key to value.
        seed: its seed.
        state: ``stopped`` means early by the scheduler, ``failed`` means without a further retry.
        score: the searched metric at the epoch whose model is kept.
        epochs: epochs trained.
        best_epoch: the epoch whose model is kept, from 1.
        train_s: seconds that the epochs took.
        ccc: CCC by split, then by attribute, if finished.
        classes: scores of classes by split, if finished and they are learned.
        test_splits: the test splits among them; they were not used for any selection.
        problem: reason of the failure, in one line.
    """

    run: str
    number: int
    setting: dict[str, Any]
    seed: int
    state: TrialState
    score: float | None = None
    epochs: int = 0
    best_epoch: int | None = None
    train_s: float = 0.0
    ccc: dict[str, dict[str, float]] | None = None
    classes: dict[str, dict[str, float]] | None = None
    test_splits: tuple[str, ...] = ()
    problem: str | None = None
    fold: str | None = None

    def test_score(self, split: str) -> float:
        """The CCC averaged over attributes; of a run that learned classes only, their macro-F1."""
        if ccc := (self.ccc or {})[split]:
            return math.fsum(ccc.values()) / len(ccc)
        return (self.classes or {})[split]["f1_emotion"]


@dataclass(frozen=True)
class RankedSetting:
    """A setting with all its seeds.

    Attributes:
        rank: from 1; finished settings come before stopped ones, and these before failed ones.
        number: number of the setting, in the order of creation.
        setting: dotted config key to value.
        state: the worst of its runs' states.
        score: mean over the seeds that have a score.
        test: for each test split, :meth:`RunOutcome.test_score` over the seeds that finished.
        epochs: epochs trained, over all seeds.
        train_s: training time in seconds, over all seeds.
        runs: one per seed.
    """

    rank: int
    number: int
    setting: dict[str, Any]
    state: TrialState
    score: Interval | None
    test: dict[str, Interval]
    epochs: int
    train_s: float
    runs: tuple[RunOutcome, ...]


_WORST_LAST: tuple[TrialState, ...] = ("finished", "stopped", "unfinished", "failed")


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95% confidence interval of independent values, such as scores of several seeds.

    Args:
        values: at least one.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, None, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def rank_settings(outcomes: Sequence[RunOutcome], mode: Literal["max", "min"]) -> list[RankedSetting]:
    """Group runs by setting and order the settings, best first.

    Args:
        outcomes: every run of the search.
        mode: whether a large or a small score is better.
    """
    groups: dict[int, list[RunOutcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.number, []).append(outcome)
    unranked = [_summarize(runs) for runs in groups.values()]
    sign = -1.0 if mode == "max" else 1.0

    def order(entry: RankedSetting) -> tuple[bool, int, float, int]:
        score = math.inf if entry.score is None else sign * entry.score.mean
        return entry.score is None, _WORST_LAST.index(entry.state), score, entry.number

    ordered = sorted(unranked, key=order)
    return [RankedSetting(**{**vars(entry), "rank": rank}) for rank, entry in enumerate(ordered, 1)]


def best_run(ranking: Sequence[RankedSetting], mode: Literal["max", "min"]) -> RunOutcome | None:
    """The run with the best seed of the best setting; None if no setting has a score."""
    if not ranking or ranking[0].score is None:
        return None
    scored = [(run.score, run) for run in ranking[0].runs if run.score is not None]
    sign = 1.0 if mode == "max" else -1.0
    return max(scored, key=lambda pair: sign * pair[0])[1]


def _summarize(runs: Sequence[RunOutcome]) -> RankedSetting:
    scores = [run.score for run in runs if run.score is not None]
    by_split: dict[str, list[float]] = {}
    for run in runs:
        for split in run.test_splits:
            # Folds are not separate test sets, so they have a common entry.
            name = split if run.fold is None else ALL_FOLDS
            by_split.setdefault(name, []).append(run.test_score(split))
    return RankedSetting(
        rank=0,
        number=runs[0].number,
        setting=runs[0].setting,
        state=max((run.state for run in runs), key=_WORST_LAST.index),
        score=interval(scores) if scores else None,
        test={split: interval(values) for split, values in by_split.items()},
        epochs=sum(run.epochs for run in runs),
        train_s=math.fsum(run.train_s for run in runs),
        runs=tuple(sorted(runs, key=lambda run: (run.seed, run.fold or ""))),
    )


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Config keys without their section where they remain distinct."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def describe_value(value: Any) -> str:
    """A searched value as text for a table."""
    if value is None:
        return "unset"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "+".join(describe_value(item) for item in value)
    return str(value)


def describe_setting(setting: Mapping[str, Any]) -> str:
    """A setting in one line."""
    names = short_names(list(setting))
    return " ".join(f"{names[key]}={describe_value(value)}" for key, value in setting.items())


def table(
    ranking: Sequence[RankedSetting], keys: Sequence[str], metric: str
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the ranked table, as text.

    Args:
        ranking: best first.
        keys: the searched keys, one column each.
        metric: the heading of the score column.
    """
    names = short_names(keys)
    splits = list(dict.fromkeys(split for entry in ranking for split in entry.test))
    measure = "macro-F1" if _learns_classes_only(ranking) else "CCC"
    header = ["#", *(names[key] for key in keys), metric, *(f"{split} {measure}" for split in splits)]
    rows = []
    for entry in ranking:
        score = "-" if entry.score is None else str(entry.score)
        tests = [str(entry.test[split]) if split in entry.test else "-" for split in splits]
        values = [describe_value(entry.setting[key]) if key in entry.setting else "-" for key in keys]
        counts = [str(len(entry.runs)), str(entry.epochs), f"{entry.train_s:.0f} s", _state(entry)]
        rows.append([str(entry.rank), *values, score, *tests, *counts])
    return [*header, "seeds", "epochs", "time", "state"], rows


def _learns_classes_only(ranking: Sequence[RankedSetting]) -> bool:
    finished = [run for entry in ranking for run in entry.runs if run.ccc is not None]
    return bool(finished) and not any(ccc for run in finished for ccc in (run.ccc or {}).values())


def _state(entry: RankedSetting) -> str:
    """The state of all runs, or how many have the worst state, for example ``2 of 3 failed``."""
    count = sum(run.state == entry.state for run in entry.runs)
    if entry.state == "finished" or count == len(entry.runs):
        return entry.state
    return f"{count} of {len(entry.runs)} {entry.state}"


def to_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in aligned columns, for a terminal or a log."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    ruled = [header, ["-" * width for width in widths], *rows]
    return "".join(
        "  ".join([*(cell.rjust(width) for cell, width in zip(line, widths[:-1], strict=False)), line[-1]])
        + "\n"
        for line in ruled
    )


def to_csv(ranking: Sequence[RankedSetting], keys: Sequence[str]) -> str:
    """CSV with one row per setting; numbers in full precision, with intervals in separate columns."""
    splits = list(dict.fromkeys(split for entry in ranking for split in entry.test))
    columns = ["rank", "number", "state", *keys, "score", "score_low", "score_high", "num_scores"]
    measure = "f1" if _learns_classes_only(ranking) else "ccc"
    columns += [f"{split}_{measure}{end}" for split in splits for end in ("", "_low", "_high")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "num_seeds", "epochs", "train_s"])
    for entry in ranking:
        values = [_cell(entry.setting.get(key)) for key in keys]
        numbers = [*_ends(entry.score), entry.score.num_values if entry.score else 0]
        tests = [end for split in splits for end in _ends(entry.test.get(split))]
        counts = [len(entry.runs), entry.epochs, round(entry.train_s, 3)]
        writer.writerow([entry.rank, entry.number, entry.state, *values, *numbers, *tests, *counts])
    return text.getvalue()


def to_json(ranking: Sequence[RankedSetting], **about: Any) -> str:
    """JSON of the whole ranking, with one object per run inside each setting.

    Args:
        ranking: best first.
        about: further keys at the top level.
    """
    document = {"schema_version": 1, **about, "settings": [asdict(entry) for entry in ranking]}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def from_json(document: Mapping[str, Any]) -> list[RankedSetting]:
    """The ranking of a document that :func:`to_json` wrote."""
    return [
        RankedSetting(
            **{
                **entry,
                "score": Interval(**entry["score"]) if entry["score"] else None,
                "test": {split: Interval(**value) for split, value in entry["test"].items()},
                "runs": tuple(
                    RunOutcome(**{**run, "test_splits": tuple(run["test_splits"])}) for run in entry["runs"]
                ),
            }
        )
        for entry in document["settings"]
    ]


def _ends(value: Interval | None) -> list[float | None]:
    return [None, None, None] if value is None else [value.mean, value.low, value.high]


def _cell(value: Any) -> Any:
    return describe_value(value) if isinstance(value, list | tuple) or value is None else value
