"""An evaluation as JSON, as Markdown, and as rows of a table.

The JSON document has ``schema_version`` 1; keys may be added without a new version, but none is changed or
removed::

    {"schema_version": 1, "raydec_version": ...,
     "model":   {"path", "sha256", "run" (null: unknown), "attributes", "classes": {GROUP: [names]}},
     "against": the same of the other model, or null,
     "store":   {"path", "corpus", "synthetic"},
     "seed", "num_resamples",
     "ccc":     {SPLIT: {ATTRIBUTE: CCC}},                      as in a run's summary.json
     "splits":  {SPLIT: {
        "num_utterances", "num_speakers" (known ones), "duration_s", "clusters_used" (null: no clusters),
        "attributes": {ATTRIBUTE: {
            "ccc", "low", "high" (95% interval), "unit" ("speaker" or "utterance": what was resampled),
            "num_units", "num_utterances", "mean_error", "rmse",
            "dependency": {"eta_squared", "epsilon_squared", "p_value", "within_speakers"} or null,
            "against": {"ccc" (the other's), "difference" (this less the other), "low", "high", "p_value",
                        "unit", "num_units"} or null,
            "raters": {"ccc", "alpha" (null: all ratings are the same), "num_utterances", "num_ratings"}
                       or null (the store has no annotators' ratings)}},
        "classes": {GROUP: {
            "classes": [names], "f1": ESTIMATE, "uar": ESTIMATE, "unit", "num_units", "num_utterances",
            "confusion": [[count]] (rows are the true classes), "recall": {NAME: recall or null}}},
        "emotion": {"mutual_information_nats", "normalized", "num_utterances"} or null,
        "speakers":  [{"speaker" (null: unknown), "num_utterances", "scores": SCORES}],
        "durations": [{"from_s", "to_s" (null: open), "num_utterances", "scores": SCORES}],
        "notes": [sentences]}}}

SCORES is ``{ATTRIBUTE: {"num_utterances", "ccc" (null for fewer than two), "mean_error", "rmse"}}``. Errors
are predictions minus labels, in the scale of the labels. ESTIMATE is ``{"value", "low", "high"}``. ``f1`` is
macro-F1, ``uar`` unweighted average recall, both over the classes that the split has. Utterances are included
if they have a label for any output of the model, and in the scores of an attribute if they have its label.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raydec.errors import UserError
from raydec.evaluation.agreement import RaterAgreement
from raydec.evaluation.class_output import CLASS_METHOD, class_document, class_rows, confusion_section
from raydec.evaluation.formatting import interval, number, p_value_text
from raydec.evaluation.result import (
    AttributeResult,
    Comparison,
    Evaluation,
    Group,
    SplitResult,
)
from raydec.files.atomic import write_text
from raydec.files.markdown import markdown_table
from raydec.version import __version__

SCHEMA_VERSION = 1
TITLE = "# Evaluation"
_MAX_SPEAKERS = 30

_METHOD = """\
## How

CCC is Lin's concordance correlation coefficient over the utterances of a split, with population moments. The
95% interval is a percentile bootstrap over {unit}. η² is the share of the labels' variance that
lies between the clusters of utterances (the most frequent cluster of an utterance's chunks), ε² the same
corrected for the share that as many clusters reach by chance; p is a permutation test of no dependency, which
permutes labels within each speaker if speakers are known. {num} resamples and permutations, seed {seed}.
"""

_RATERS_METHOD = """
One rater is the CCC of one annotator's rating and the mean of the others' on the same utterance, α is
Krippendorff's alpha for interval data, both over the utterances with at least two ratings.
"""


def check_output(path: Path) -> None:
    """Check before the work that the result can be written to a path.

    Raises:
        UserError: it does not end in ``.json``, or the Markdown file beside it is not an evaluation.
    """
    if path.suffix.lower() != ".json":
        raise UserError(f"--out {path}: it must end in .json; the Markdown file goes beside it")
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; choose another name")
    sibling = path.with_suffix(".md")
    try:
        is_ours = not sibling.exists() or sibling.read_text(encoding="utf-8").startswith(TITLE)
    except (OSError, ValueError):
        is_ours = False
    if not is_ours:
        raise UserError(f"--out {path}: {sibling} exists and is not an evaluation; choose another name")


def write_evaluation(evaluation: Evaluation, path: Path) -> Path:
    """Write the JSON file, and a Markdown file beside it; returns the path of the latter.

    Raises:
        UserError: see :func:`check_output`, or the folder cannot be written.
    """
    check_output(path)
    document = evaluation_document(evaluation)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    sibling = path.with_suffix(".md")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_text(sibling, evaluation_markdown(evaluation))
        write_text(path, text + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return sibling


def evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    """The JSON document; its schema is in the module's docstring."""
    return {
        "schema_version": SCHEMA_VERSION,
        "raydec_version": __version__,
        "model": asdict(evaluation.model),
        "against": None if evaluation.against is None else asdict(evaluation.against),
        "store": {
            "path": evaluation.store,
            "corpus": evaluation.corpus,
            "synthetic": evaluation.synthetic,
        },
        "seed": evaluation.seed,
        "num_resamples": evaluation.num_resamples,
        "ccc": {
            split.split: {name: result.estimate.ccc for name, result in split.attributes.items()}
            for split in evaluation.splits
        },
        "splits": {split.split: _split_document(split) for split in evaluation.splits},
    }


def evaluation_markdown(evaluation: Evaluation) -> str:
    """The Markdown document."""
    subject = evaluation.model.run or evaluation.model.path
    corpus = f"{evaluation.corpus}, synthetic" if evaluation.synthetic else evaluation.corpus
    sections = [
        f"{TITLE} of {subject} on {evaluation.corpus}\n",
        f"- model: `{evaluation.model.path}` (sha256 {evaluation.model.sha256[:16]})\n"
        f"- feature store: `{evaluation.store}` ({corpus})",
    ]
    if any(split.attributes for split in evaluation.splits):
        sections.append(markdown_table(*result_rows(evaluation)))
    if any(split.classes for split in evaluation.splits):
        sections.append(markdown_table(*class_rows(evaluation)))
    if evaluation.against is not None:
        sections += [
            f"## Against `{evaluation.against.path}`\n\nDifferences are this model's CCC minus the other's; "
            "both are scored on the same resamples.",
            markdown_table(*comparison_rows(evaluation)),
        ]
    sections += [section for split in evaluation.splits for section in _split_sections(split)]
    units = {result.estimate.unit for split in evaluation.splits for result in split.attributes.values()}
    units |= {result.scores.unit for split in evaluation.splits for result in split.classes.values()}
    unit = " or ".join(f"{unit}s" for unit in sorted(units))
    method = _METHOD + (_RATERS_METHOD if _has_raters(evaluation) else "")
    method += CLASS_METHOD if evaluation.model.classes else ""
    sections.append(method.format(unit=unit, num=evaluation.num_resamples, seed=evaluation.seed))
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def result_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table: one row per split and attribute."""
    header = ["split", "attribute", "utterances", "CCC", "95% interval", "over", "η²", "ε²", "p"]
    has_raters = _has_raters(evaluation)
    header += ["one rater", "raters' α"] if has_raters else []
    rows = []
    for split, name, result in _results(evaluation):
        estimate, dependency = result.estimate, result.dependency
        rows.append(
            [
                split.split,
                name,
                str(estimate.num_utterances),
                number(estimate.ccc),
                interval(estimate.low, estimate.high),
                f"{estimate.num_units} {estimate.unit}s",
                "–" if dependency is None else number(dependency.eta_squared),
                "–" if dependency is None else number(dependency.epsilon_squared),
                "–" if dependency is None else p_value_text(dependency.p_value, evaluation.num_resamples),
                *(_rater_cells(result.raters) if has_raters else ()),
            ]
        )
    return header, rows


def _has_raters(evaluation: Evaluation) -> bool:
    return any(result.raters is not None for _, _, result in _results(evaluation))


def _rater_cells(raters: RaterAgreement | None) -> tuple[str, str]:
    if raters is None:
        return "–", "–"
    return number(raters.ccc), "–" if raters.alpha is None else number(raters.alpha)


def comparison_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the comparison with another model."""
    header = ["split", "attribute", "CCC", "other's CCC", "difference", "95% interval", "p"]
    rows = []
    for split, name, result in _results(evaluation):
        if (comparison := result.comparison) is None:
            continue
        difference = comparison.difference
        rows.append(
            [
                split.split,
                name,
                number(result.estimate.ccc),
                number(comparison.ccc),
                f"{round(difference.difference, 4) + 0.0:+.4f}",
                interval(difference.low, difference.high),
                p_value_text(difference.p_value, evaluation.num_resamples),
            ]
        )
    return header, rows


def _results(evaluation: Evaluation) -> Iterable[tuple[SplitResult, str, AttributeResult]]:
    return ((split, name, result) for split in evaluation.splits for name, result in split.attributes.items())


def _split_document(split: SplitResult) -> dict[str, Any]:
    return {
        "num_utterances": split.num_utterances,
        "num_speakers": split.num_speakers,
        "duration_s": split.duration_s,
        "clusters_used": split.clusters_used,
        "attributes": {name: _attribute_document(result) for name, result in split.attributes.items()},
        "classes": {group: class_document(result) for group, result in split.classes.items()},
        "emotion": None if split.emotion is None else asdict(split.emotion),
        "speakers": [{"speaker": group.key, **_group_document(group)} for group in split.speakers],
        "durations": [
            {"from_s": begin, "to_s": end, **_group_document(group)}
            for group in split.durations
            for begin, end in [_range(group)]
        ],
        "notes": list(split.notes),
    }


def _attribute_document(result: AttributeResult) -> dict[str, Any]:
    return {
        **asdict(result.estimate),
        "mean_error": result.mean_error,
        "rmse": result.rmse,
        "dependency": None if result.dependency is None else asdict(result.dependency),
        "against": None if result.comparison is None else _comparison_document(result.comparison),
        "raters": None if result.raters is None else asdict(result.raters),
    }


def _comparison_document(comparison: Comparison) -> dict[str, Any]:
    return {"ccc": comparison.ccc, **asdict(comparison.difference)}


def _group_document(group: Group) -> dict[str, Any]:
    return {
        "num_utterances": group.num_utterances,
        "scores": {name: asdict(score) for name, score in group.scores.items()},
    }


def _range(group: Group) -> tuple[float, float | None]:
    assert isinstance(group.key, tuple), f"{group.key!r} is not a range of durations"
    return group.key


def _split_sections(split: SplitResult) -> list[str]:
    sections = [
        f"## {split.split}\n\n{split.num_utterances} labeled utterances of {split.num_speakers} known "
        f"speakers, {split.duration_s / 3600:.2f} h."
    ]
    if split.clusters_used is not None:
        sections[0] += f" They are in {split.clusters_used} clusters."
    if split.emotion is not None:
        sections.append(
            f"Emotion class and cluster share {split.emotion.mutual_information_nats:.4f} nats "
            f"(normalised: {split.emotion.normalized:.4f}) over {split.emotion.num_utterances} utterances."
        )
    sections += [f"Note: {note}." for note in split.notes]
    sections += [confusion_section(group, result) for group, result in split.classes.items()]
    names = list(split.attributes)
    if not names:
        return sections
    durations = [(_range_name(group), group) for group in split.durations]
    sections += ["### By duration", _group_table("duration", durations, names)]
    most = sorted(split.speakers, key=lambda group: -group.num_utterances)[:_MAX_SPEAKERS]
    rest = len(split.speakers) - len(most)
    title = "### By speaker" + (
        f"\n\nThe {len(most)} with most utterances; the JSON has all." if rest else ""
    )
    speakers = [(_speaker_name(group), group) for group in most]
    return [*sections, title, _group_table("speaker", speakers, names)]


def _group_table(kind: str, groups: Sequence[tuple[str, Group]], attributes: Sequence[str]) -> str:
    header = [kind, "utterances", *(f"{name} {what}" for name in attributes for what in ("CCC", "error"))]
    rows = []
    for label, group in groups:
        row = [label, str(group.num_utterances)]
        for name in attributes:
            score = group.scores.get(name)
            row.append("–" if score is None or score.ccc is None else number(score.ccc))
            row.append("–" if score is None else f"{score.mean_error:+.2f} ± {score.rmse:.2f}")
        rows.append(row)
    legend = "Errors are the mean of prediction minus label ± the root mean square."
    return f"{markdown_table(header, rows)}\n\n{legend}"


def _range_name(group: Group) -> str:
    begin, end = _range(group)
    return f"{begin:g} s and longer" if end is None else f"{begin:g} to {end:g} s"


def _speaker_name(group: Group) -> str:
    return "unknown" if group.key is None else str(group.key)
