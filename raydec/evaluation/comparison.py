"""The paper's table: models against the best baseline, over seeds, with intervals over speakers.

One row per attribute and model. The mean is over seeds; the 95% interval is a bootstrap over the speakers of
the split; the test is a paired bootstrap against the baseline with the highest mean on the same split, the
hardest one to beat.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from raydec.evaluation.statistics import CccDifference, CccEstimate, bootstrap_ccc, compare_ccc
from raydec.files.markdown import markdown_table
from raydec.learning.randomness import generator_for

HEADER = (
    "attribute",
    "model",
    "unlabeled",
    "seeds",
    "CCC",
    "95% low",
    "95% high",
    "minus best baseline",
    "p",
    "failed",
)
_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


@dataclass(frozen=True)
class Cell:
    """A setting of the experiment with the predictions files of its finished seeds.

    Attributes:
        setting: dotted config key to value.
        predictions: ``predictions.parquet`` of each finished run.
        num_failed: number of seeds without predictions.
    """

    setting: Mapping[str, Any]
    predictions: Sequence[Path]
    num_failed: int = 0

    @property
    def is_baseline(self) -> bool:
        """Whether this is one of the models that DeepEmoCluster is compared with."""
        return self.setting.get("model.kind", "deepemocluster") != "deepemocluster"


@dataclass(frozen=True)
class ComparisonRow:
    """One attribute of one cell on one split.

    Attributes:
        attribute: the predicted attribute.
        model: description of the setting, without attribute and unlabeled utterances.
        unlabeled: number of unlabeled utterances, or ``all``.
        num_seeds: number of finished seeds.
        num_failed: number of seeds without a result.
        estimate: mean CCC with its interval; None without a finished seed.
        difference: from the best baseline; None for the best baseline itself, or without a baseline.
    """

    attribute: str
    model: str
    unlabeled: str
    num_seeds: int
    num_failed: int
    estimate: CccEstimate | None
    difference: CccDifference | None


@dataclass(frozen=True)
class _Scored:
    predictions: Float[np.ndarray, "seed utterance"]
    target: Float[np.ndarray, "utterance"]
    speakers: list[str | None]


def compare_cells(
    cells: Sequence[Cell], split: str, *, seed: int = 0, num_resamples: int = 2000
) -> list[ComparisonRow]:
    """Score every cell on a split, attribute by attribute; failed cells have a row too."""
    rows = []
    for attribute in sorted({name for cell in cells for name in _attributes(cell)}):
        members = [cell for cell in cells if attribute in _attributes(cell)]
        scored = [_read(cell, split, attribute) for cell in members]
        best = _best_baseline(members, scored)
        for index, (cell, result) in enumerate(zip(members, scored, strict=True)):
            estimate, difference = None, None
            if result is not None:
                # All rows of an attribute use the same resamples.
                rng = generator_for(seed, "comparison", attribute)
                estimate = bootstrap_ccc(
                    result.predictions, result.target, result.speakers, rng, num_resamples=num_resamples
                )
            if result is not None and best is not None and index != best:
                rival = scored[best]
                assert rival is not None
                difference = compare_ccc(
                    result.predictions,
                    rival.predictions,
                    result.target,
                    result.speakers,
                    generator_for(seed, "comparison", attribute),
                    num_resamples=num_resamples,
                )
            rows.append(
                ComparisonRow(
                    attribute,
                    _model_name(cell.setting),
                    _unlabeled_name(cell.setting),
                    len(cell.predictions),
                    cell.num_failed,
                    estimate,
                    difference,
                )
            )
    return rows


def _attributes(cell: Cell) -> list[str]:
    """Attributes of a cell, from its setting or else from its files."""
    named = cell.setting.get("data.attributes")
    if named is not None:
        return list(named)
    if not cell.predictions:
        return []
    suffix = "_predicted"
    names = pq.read_schema(cell.predictions[0]).names
    return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]


def _read(cell: Cell, split: str, attribute: str) -> _Scored | None:
    if not cell.predictions:
        return None
    tables = [pq.read_table(path) for path in cell.predictions]
    tables = [table.filter(pc.equal(table["split"], split)).sort_by("utterance_id") for table in tables]
    first = tables[0]
    assert all(table["utterance_id"].equals(first["utterance_id"]) for table in tables), "other utterances"
    return _Scored(
        np.stack([table[f"{attribute}_predicted"].to_numpy() for table in tables]),
        first[attribute].to_numpy(),
        first["speaker"].to_pylist(),
    )


def _best_baseline(cells: Sequence[Cell], scored: Sequence[_Scored | None]) -> int | None:
    means = {}
    for index, (cell, result) in enumerate(zip(cells, scored, strict=True)):
        if cell.is_baseline and result is not None:
            rng = generator_for(0, "best_baseline")
            means[index] = bootstrap_ccc(
                result.predictions, result.target, result.speakers, rng, num_resamples=1
            ).ccc
    return max(means, key=means.__getitem__) if means else None


def _model_name(setting: Mapping[str, Any]) -> str:
    kind = str(setting.get("model.kind", "deepemocluster"))
    rest = {
        key: value
        for key, value in setting.items()
        if key not in ("model.kind", "data.attributes", "data.unlabeled_utterances")
    }
    return ", ".join([kind, *(f"{key.split('.')[-1]}={_value_name(key, rest[key])}" for key in rest)])


def _unlabeled_name(setting: Mapping[str, Any]) -> str:
    key = "data.unlabeled_utterances"
    return _value_name(key, setting.get(key))


def _value_name(key: str, value: object) -> str:
    if value is None:
        return "all" if key.endswith("labeled_utterances") else "unset"
    return str(value)


def comparison_rows(rows: Sequence[ComparisonRow]) -> list[list[str]]:
    """The rows as text, in the order of :data:`HEADER`."""
    return [
        [
            row.attribute,
            row.model,
            row.unlabeled,
            str(row.num_seeds),
            *_estimate_text(row.estimate),
            *_difference_text(row.difference),
            str(row.num_failed),
        ]
        for row in rows
    ]


def _estimate_text(estimate: CccEstimate | None) -> list[str]:
    if estimate is None:
        return ["failed", "", ""]
    return [f"{value:.4f}" for value in (estimate.ccc, estimate.low, estimate.high)]


def _difference_text(difference: CccDifference | None) -> list[str]:
    if difference is None:
        return ["", ""]
    return [f"{difference.difference:+.4f}", f"{difference.p_value:.4f}"]


def to_markdown(rows: Sequence[ComparisonRow]) -> str:
    """A Markdown table with an explanation below it."""
    return f"{markdown_table(HEADER, comparison_rows(rows))}\n\n{_caption(rows)}\n"


def _caption(rows: Sequence[ComparisonRow]) -> str:
    estimates = [row.estimate for row in rows if row.estimate is not None]
    if not estimates:
        return "No run was scored."
    units, unit = max((estimate.num_units, estimate.unit) for estimate in estimates)
    few = f" With {units} {unit}s p cannot be below {2.0 ** (1 - units):.2g}." if units < 11 else ""
    return (
        f"CCC: mean over seeds. Interval and p: bootstrap over the {units} {unit}s of the split, p against "
        f"the baseline with the highest mean.{few} They do not include the spread over seeds."
    )


def to_csv(rows: Sequence[ComparisonRow]) -> str:
    """Comma-separated values with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([HEADER, *comparison_rows(rows)])
    return text.getvalue()


def to_latex(rows: Sequence[ComparisonRow]) -> str:
    """A ``tabular`` for booktabs."""
    lines = [
        rf"\begin{{tabular}}{{lll{'r' * (len(HEADER) - 3)}}}",
        r"\toprule",
        _latex_line(HEADER),
        r"\midrule",
        *(_latex_line(cells) for cells in comparison_rows(rows)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"
