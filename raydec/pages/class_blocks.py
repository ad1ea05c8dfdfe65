"""Emotion classes in a run's report: scores by epoch and by split, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from raydec.evaluation.result import ClassResult
from raydec.learning.classification import Estimate
from raydec.pages.html_page import Plot, ShadedCell, Table, series_color
from raydec.pages.training_figures import History, epoch_layout, epoch_line

_MEASURES = {"f1": "macro-F1", "uar": "UAR"}


def class_curves(history: History, group: str, best_epoch: int) -> Plot:
    """Macro-F1 and unweighted average recall on the validation split by epoch."""
    figure = go.Figure()
    for number, (key, name) in enumerate(_MEASURES.items()):
        figure.add_trace(epoch_line(history, f"valid/{key}_{group}", name, series_color(number)))
    epoch_layout(figure, "mean over classes", best_epoch)
    best = history[best_epoch - 1][f"valid/f1_{group}"]
    return Plot(
        f"validation-{group}",
        f"Classes ({group}) on the validation split",
        f"Line chart of validation macro-F1 and unweighted average recall over {len(history)} epochs; "
        f"macro-F1 {best:.3f} in epoch {best_epoch}",
        figure,
        "Macro-F1 is the mean of the classes' F1, UAR (unweighted average recall) that of their recalls. "
        f"The model of epoch {best_epoch} was kept (dotted line); its macro-F1 is {best:.3f}.",
    )


def class_table(results: Mapping[str, Mapping[str, ClassResult]]) -> Table:
    """Scores with intervals; ``results`` by split, then by group of classes."""
    rows = [
        [
            split,
            f"{group} ({len(result.classes)})",
            *_cells(result.scores.f1),
            *_cells(result.scores.uar),
            f"{result.scores.num_utterances:,}",
            f"{result.scores.num_units:,} {result.scores.unit}s",
        ]
        for split, found in results.items()
        for group, result in found.items()
    ]
    header = ("split", "classes", "macro-F1", "95% interval", "UAR", "95% interval", "utterances", "drawn")
    return Table("Classes by split", header, rows, "Intervals are a bootstrap that draws whole speakers.")


def confusion_matrix(group: str, result: ClassResult, split: str) -> Table:
    """Counts of utterances by true and predicted class, shaded by row."""
    counts = result.scores.confusion
    rows: list[list[str | ShadedCell]] = []
    for name, row, recall in zip(result.classes, counts.tolist(), result.scores.recalls, strict=True):
        total = sum(row)
        shaded = [ShadedCell(count / total if total else 0.0, f"{count:,}") for count in row]
        rows.append([f"{name} ({total:,})", *shaded, "–" if recall is None else f"{recall:.0%}"])
    return Table(
        f"Confusion of {group}, {split}",
        ("true", *result.classes, "recall"),
        rows,
        "Rows are true classes, columns the most probable class: the largest mean over an utterance's "
        "chunks. A good model is dark on the diagonal.",
    )


def _cells(estimate: Estimate) -> list[str]:
    return [f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}"]
