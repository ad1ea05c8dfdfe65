"""Scores of classes as JSON, as Markdown, and as rows of a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from raydec.evaluation.formatting import interval, number
from raydec.evaluation.result import ClassResult, Evaluation
from raydec.files.markdown import markdown_table
from raydec.learning.classification import Estimate

CLASS_METHOD = """
An utterance's class is the one with the largest mean probability over its chunks. Macro-F1 is the mean of the
classes' F1, UAR (unweighted average recall) that of their recalls; classes without utterances are ignored.
"""


def class_document(result: ClassResult) -> dict[str, Any]:
    """One group of classes of one split, for the JSON document."""
    scores = result.scores
    return {
        "classes": list(result.classes),
        "f1": asdict(scores.f1),
        "uar": asdict(scores.uar),
        "unit": scores.unit,
        "num_units": scores.num_units,
        "num_utterances": scores.num_utterances,
        "confusion": scores.confusion.tolist(),
        "recall": dict(zip(result.classes, scores.recalls, strict=True)),
    }


def class_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of classes: one row per split and group."""
    header = ["split", "classes", "utterances", "macro-F1", "95% interval", "UAR", "95% interval", "over"]
    rows = [
        [
            split.split,
            f"{group} ({', '.join(result.classes)})",
            str(result.scores.num_utterances),
            *_estimate_cells(result.scores.f1),
            *_estimate_cells(result.scores.uar),
            f"{result.scores.num_units} {result.scores.unit}s",
        ]
        for split in evaluation.splits
        for group, result in split.classes.items()
    ]
    return header, rows


def _estimate_cells(estimate: Estimate) -> list[str]:
    return [number(estimate.value), interval(estimate.low, estimate.high)]


def confusion_section(group: str, result: ClassResult) -> str:
    """The confusion matrix with its heading."""
    rows = [
        [name, *map(str, counts), "–" if recall is None else f"{recall:.2f}"]
        for name, counts, recall in zip(
            result.classes, result.scores.confusion.tolist(), result.scores.recalls, strict=True
        )
    ]
    table = markdown_table([f"true {group}", *result.classes, "recall"], rows)
    return f"### Confusion of {group}\n\nRows are true classes, columns predicted classes.\n\n{table}"
