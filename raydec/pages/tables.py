"""The tables and sentences of a run's report."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

import numpy as np
from jaxtyping import Float64, Int64

from raydec.config import Config, changed_keys, config_yaml, iterate_keys
from raydec.evaluation.agreement import RaterAgreement
from raydec.evaluation.statistics import (
    CccEstimate,
)
from raydec.learning.dependency import Dependency, EmotionInformation
from raydec.pages.finished_run import FinishedRun
from raydec.pages.html_page import Details, ShadedCell, Table
from raydec.version import __version__

_PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "scikit-learn", "pyarrow", "plotly", "ray")
_THIRDS = ("low", "middle", "high")
_FEW_SPEAKERS = 10
_RATERS_CAPTION = (
    "One rater is the CCC of one annotator's rating and the mean of the others', α is Krippendorff's alpha "
    "for interval data: where annotators disagree, no model can agree with all of them."
)


def ccc_table(
    estimates: Mapping[str, Mapping[str, CccEstimate]], raters: Mapping[str, Mapping[str, RaterAgreement]]
) -> Table:
    """The numbers of the CCC figure, and the agreement of annotators; both by split, then by attribute."""
    has_raters = any(raters.values())
    rows = [
        [
            split,
            name,
            f"{estimate.ccc:.3f}",
            f"{estimate.low:.3f} to {estimate.high:.3f}",
            f"{estimate.num_utterances:,}",
            f"{estimate.num_units:,} {estimate.unit}s",
            *(_rater_cells(raters.get(split, {}).get(name)) if has_raters else ()),
        ]
        for split, found in estimates.items()
        for name, estimate in found.items()
    ]
    all_estimates = [estimate for found in estimates.values() for estimate in found.values()]
    caption = ""
    if any(estimate.unit == "utterance" for estimate in all_estimates):
        caption = "With fewer than two known speakers, utterances are drawn, and intervals are too narrow."
    elif any(estimate.num_units < _FEW_SPEAKERS for estimate in all_estimates):
        caption = (
            f"With fewer than {_FEW_SPEAKERS} speakers, an interval over speakers is only a rough guide."
        )
    header = ["split", "attribute", "CCC", "95% interval", "utterances", "drawn"]
    if has_raters:
        header += ["one rater", "raters' α"]
        caption = f"{caption} {_RATERS_CAPTION}".strip()
    return Table("CCC by split", header, rows, caption)


def _rater_cells(raters: RaterAgreement | None) -> tuple[str, str]:
    if raters is None:
        return "–", "–"
    return f"{raters.ccc:.3f}", "–" if raters.alpha is None else f"{raters.alpha:.3f}"


def confusion_table(
    name: str, scores: Float64[np.ndarray, " utterance"], labels: Float64[np.ndarray, " utterance"]
) -> Table:
    """Confusion of low, middle and high, which are thirds of the true labels."""
    counts, edges = confusion(scores, labels)
    totals = counts.sum(axis=1)
    rows: list[list[str | ShadedCell]] = [
        [
            f"{third} ({total:,})",
            *(ShadedCell(count / total if total else 0.0, f"{count:,}") for count in row),
        ]
        for third, row, total in zip(_THIRDS, counts.tolist(), totals.tolist(), strict=True)
    ]
    return Table(
        f"{name.capitalize()}: low, middle, high",
        ("true", *_THIRDS),
        rows,
        f"Rows are thirds of the true labels (low below {edges[0]:.2f}, high above {edges[1]:.2f}), columns "
        "where predictions fall. A model that avoids extreme predictions fills the middle column.",
    )


def confusion(
    scores: Float64[np.ndarray, " utterance"], labels: Float64[np.ndarray, " utterance"]
) -> tuple[Int64[np.ndarray, "true predicted"], tuple[float, float]]:
    """Counts of utterances by third of the true and the predicted value, and the edges of the thirds.

    Labels and predictions are cut at the terciles of the known labels; a value on an edge counts as middle.
    """
    known = ~np.isnan(labels)
    low, high = (float(edge) for edge in np.quantile(labels[known], [1 / 3, 2 / 3]))

    def third(values: Float64[np.ndarray, " utterance"]) -> Int64[np.ndarray, " utterance"]:
        return 1 + (values > high).astype(np.int64) - (values < low)

    counts = np.zeros((3, 3), dtype=np.int64)
    np.add.at(counts, (third(labels[known]), third(scores[known])), 1)
    return counts, (low, high)


def dependency_sentence(name: str, dependency: Dependency, num_permutations: int) -> str:
    """One sentence about eta squared and its permutation test."""
    p_value = "p < 0.001" if dependency.p_value < 0.001 else f"p = {dependency.p_value:.3f}"
    among = "within each speaker" if dependency.within_speakers else "among all utterances"
    return (
        f"η² = {dependency.eta_squared:.3f}: clusters account for {dependency.eta_squared:.0%} of the "
        f"variance of {name}; ε² = {dependency.epsilon_squared:.3f} after what as many clusters reach by "
        f"chance is taken away. Test of no dependency: {p_value} ({num_permutations:,} permutations {among})."
    )


def information_sentence(information: EmotionInformation) -> str:
    """A sentence about the mutual information of clusters and emotion classes."""
    return (
        f"Mutual information of class and cluster: {information.mutual_information_nats:.3f} nats, "
        f"{information.normalized:.3f} of the mean entropy (0: unrelated, 1: each determines the other), "
        f"over {information.num_utterances:,} utterances with a class. Each row adds up to 100%."
    )


def settings_table(config: Config) -> Table:
    """The settings that differ from their defaults."""
    defaults = {key: default for key, _, default, _ in iterate_keys(type(config))}
    rows = [
        [key, _shown(_value(config, key)), _shown(defaults[key])]
        for key in changed_keys(type(config)(), config)
    ]
    return Table("Settings that are not the default", ("key", "value", "default"), rows)


def settings_details(config: Config) -> Details:
    """All settings, in the format of ``config.yaml``."""
    return Details("Resolved config (config.yaml)", config_yaml(config))


def run_table(run: FinishedRun) -> Table:
    """Facts about the training."""
    seconds = [epoch["time/epoch_s"] for epoch in run.history if "time/epoch_s" in epoch]
    speed = [epoch["throughput/chunks_per_s"] for epoch in run.history if "throughput/chunks_per_s" in epoch]
    rows = [
        ["corpus", f"{run.store.corpus_name}{' (synthetic)' if run.store.synthetic else ''}"],
        ["utterances in the store", f"{len(run.store):,}"],
        ["raydec", str(run.trained.extra.get("raydec_version", "unknown"))],
        ["parameters", f"{sum(p.numel() for p in run.trained.networks[0][1].parameters()):,}"],
    ]
    if seconds:
        rows.append(
            ["epoch takes", f"{np.mean(seconds):.1f} s (all {len(seconds)}: {sum(seconds) / 60:.1f} min)"]
        )
    if speed:
        rows.append(["chunks per second, trained", f"{np.mean(speed):,.0f}"])
    return Table("Training run", ("what", "value"), rows)


def environment_table() -> Table:
    """Versions of the software that made this report."""
    rows = [["raydec", __version__], ["Python", platform.python_version()]]
    for name in _PACKAGES:
        try:
            rows.append([name, metadata.version(name)])
        except metadata.PackageNotFoundError:
            continue
    rows.append(["machine", f"{platform.system()} {platform.machine()}"])
    return Table("This report was made with", ("what", "version"), rows)


def _value(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
