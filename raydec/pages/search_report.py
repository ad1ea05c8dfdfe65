"""The pages of a search: an HTML report with plots, and TensorBoard hyperparameters."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from tensorboardX import SummaryWriter

from raydec.files.atomic import publish, temporary_file
from raydec.pages.html_page import Block, Plot, Section, Table, plot_text, render_page
from raydec.search.ranking import (
    RankedSetting,
    describe_setting,
    describe_value,
    short_names,
    table,
)
from raydec.search.results import HPARAMS_FOLDER, REPORT_FILE, SearchResults
from raydec.version import __version__

NUM_CLUSTERS = "clustering.num_clusters"
_MAX_SCATTERS = 8


def write_search_pages(results: SearchResults) -> None:
    """Write a search's HTML report and its TensorBoard hyperparameters into its directory."""
    study = results.study
    metric = study.plan.config.search.metric
    write_search_report(study.local / REPORT_FILE, study.name, metric, study.plan.keys, results.ranking)
    write_hparams(study.local / HPARAMS_FOLDER, metric, results.ranking)


def write_search_report(
    path: Path, name: str, metric: str, keys: Sequence[str], ranking: Sequence[RankedSetting]
) -> None:
    """Write a self-contained HTML file with the ranked table and the plots.

    Args:
        path: the file.
        name: of the search.
        metric: the searched metric.
        keys: the searched keys.
        ranking: best first.
    """
    scored = [entry for entry in ranking if entry.score is not None]
    header, rows = table(ranking, keys, metric)
    blocks: list[list[Block]] = [[Table("Every setting, best first", header, rows)]]
    if scored:
        # Most searches are about the cluster count, so it comes first.
        shown = sorted(keys, key=lambda key: key != NUM_CLUSTERS)[:_MAX_SCATTERS]
        blocks.append([parallel_coordinates(scored, keys, metric)])
        blocks.append([score_against(scored, key, metric, number) for number, key in enumerate(shown)])
    intro = f"{len(ranking)} settings by {metric}; ± is the 95% confidence interval over seeds (Student's t)."
    page = render_page(
        f"Search {name}",
        [Section("Results", intro, blocks)],
        footer=f"Made by raydec {__version__}. This file is self-contained and loads nothing from elsewhere.",
        # Parallel coordinates use WebGL programs, which plotly compiles in the browser.
        may_compile=True,
    )
    with temporary_file(path.parent) as file:
        file.write(page.encode())
        publish(file, path)


def parallel_coordinates(ranking: Sequence[RankedSetting], keys: Sequence[str], metric: str) -> Plot:
    """Parallel coordinates: one line per setting through all searched keys to its score."""
    names = short_names(keys)
    dimensions = [_axis(names[key], [entry.setting.get(key) for entry in ranking]) for key in keys]
    scores = [_mean(entry) for entry in ranking]
    figure = go.Figure(
        go.Parcoords(
            line={"color": scores, "colorscale": "Viridis", "showscale": True},
            dimensions=[*dimensions, {"label": metric, "values": scores}],
        )
    )
    return Plot(
        "settings",
        "Settings and scores",
        f"Parallel coordinates of {len(ranking)} settings: one line each, through its values to its score.",
        figure.update_layout(margin={"l": 80, "r": 40}),
        "Drag along an axis to show only the settings that cross it there.",
        height_px=420,
    )


def _axis(label: str, values: Sequence[Any]) -> dict[str, Any]:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"label": label, "values": list(values)}
    words = [plot_text(describe_value(value)) for value in values]
    ticks = sorted(set(words))
    return {
        "label": label,
        "values": [ticks.index(word) for word in words],
        "tickvals": list(range(len(ticks))),
        "ticktext": ticks,
    }


def score_against(ranking: Sequence[RankedSetting], key: str, metric: str, number: int) -> Plot:
    """Score over one searched key, with confidence intervals."""
    having = [entry for entry in ranking if key in entry.setting]
    numeric = all(isinstance(entry.setting[key], int | float) for entry in having)
    words = [plot_text(describe_value(entry.setting[key])) for entry in having]
    halves = [
        0.0 if entry.score is None or entry.score.high is None else entry.score.high - entry.score.mean
        for entry in having
    ]
    figure = go.Figure(
        go.Scatter(
            x=[entry.setting[key] for entry in having] if numeric else words,
            y=[_mean(entry) for entry in having],
            error_y={"type": "data", "array": halves, "visible": any(halves)},
            mode="markers",
            text=[plot_text(describe_setting(entry.setting)) for entry in having],
        )
    )
    return Plot(
        f"score-{number}",
        f"{metric} against {key}",
        f"Scatter plot of {metric} over {key}, one point per setting.",
        figure.update_layout(xaxis_title=key, yaxis_title=metric),
        height_px=360,
    )


def write_hparams(folder: Path, metric: str, ranking: Sequence[RankedSetting]) -> None:
    """Write every run's setting and scores for TensorBoard's hyperparameter view, replacing older ones."""
    shutil.rmtree(folder, ignore_errors=True)
    for entry in ranking:
        for run in entry.runs:
            if run.score is None:
                continue
            settings = {key: _plain(value) for key, value in run.setting.items()}
            scores = {metric: run.score, "time/train_s": run.train_s}
            for split, ccc in (run.ccc or {}).items():
                scores |= {f"{split}/ccc_{attribute}": value for attribute, value in ccc.items()}
            writer = SummaryWriter(str(folder / run.run))
            writer.add_hparams({**settings, "seed": run.seed}, scores, name=".")
            writer.close()


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else describe_value(value)


def _mean(entry: RankedSetting) -> float:
    assert entry.score is not None
    return entry.score.mean
