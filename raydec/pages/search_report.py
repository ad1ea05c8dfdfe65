"""What a search leaves to look at: an HTML report with plots, and TensorBoard hyperparameters."""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from tensorboardX import SummaryWriter

from raydec.search.ranking import (
    RankedSetting,
    describe_setting,
    describe_value,
    short_names,
    table,
)
from raydec.search.results import HPARAMS_FOLDER, REPORT_FILE, SearchResults
from raydec.search.state import Study

NUM_CLUSTERS = "clustering.num_clusters"
_MAX_SCATTERS = 8

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #ddd }
tbody tr:first-child { font-weight: 600 }
.wide { overflow-x: auto }
"""


def write_search_pages(study: Study, results: SearchResults) -> None:
    """Write a search's HTML report and its TensorBoard hyperparameters into its directory."""
    metric = study.plan.config.search.metric
    write_search_report(study.local / REPORT_FILE, study.name, metric, study.plan.keys, results.ranking)
    write_hparams(study.local / HPARAMS_FOLDER, metric, results.ranking)


def write_search_report(
    path: Path, name: str, metric: str, keys: Sequence[str], ranking: Sequence[RankedSetting]
) -> None:
    """Write one HTML file that needs no other: the ranked table and the plots.

    Args:
        path: the file.
        name: of the search.
        metric: the searched metric.
        keys: the searched keys.
        ranking: best first.
    """
    scored = [entry for entry in ranking if entry.score is not None]
    figures = [parallel_coordinates(scored, keys, metric)] if scored else []
    # The cluster count first: it is what most searches are about.
    for key in sorted(keys, key=lambda key: key != NUM_CLUSTERS)[:_MAX_SCATTERS]:
        if scored:
            figures.append(score_against(scored, key, metric))
    plots = [
        figure.to_html(
            full_html=False,
            include_plotlyjs=index == 0,
            # Plotly 7 draws a button that uploads the chart; reports stay where they are.
            config={"showSendToCloud": False},
        )
        for index, figure in enumerate(figures)
    ]
    title = html.escape(f"Search {name}")
    path.write_text(
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{len(ranking)} settings by {html.escape(metric)}; ± is the 95% confidence interval over seeds "
        "(Student's t).</p>"
        f"<div class='wide'>{_html_table(ranking, keys, metric)}</div>{''.join(plots)}</body></html>\n",
        encoding="utf-8",
    )


def _html_table(ranking: Sequence[RankedSetting], keys: Sequence[str], metric: str) -> str:
    header, rows = table(ranking, keys, metric)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def parallel_coordinates(ranking: Sequence[RankedSetting], keys: Sequence[str], metric: str) -> go.Figure:
    """One line per setting through all searched keys to its score; axes can be brushed."""
    names = short_names(keys)
    dimensions = [_axis(names[key], [entry.setting.get(key) for entry in ranking]) for key in keys]
    scores = [_mean(entry) for entry in ranking]
    figure = go.Figure(
        go.Parcoords(
            line={"color": scores, "colorscale": "Viridis", "showscale": True},
            dimensions=[*dimensions, {"label": metric, "values": scores}],
        )
    )
    return figure.update_layout(title="Every setting", height=420, margin={"l": 80, "r": 40})


def _axis(label: str, values: Sequence[Any]) -> dict[str, Any]:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"label": label, "values": list(values)}
    words = [describe_value(value) for value in values]
    ticks = sorted(set(words))
    return {
        "label": label,
        "values": [ticks.index(word) for word in words],
        "tickvals": list(range(len(ticks))),
        "ticktext": ticks,
    }


def score_against(ranking: Sequence[RankedSetting], key: str, metric: str) -> go.Figure:
    """Score over one searched key, with confidence intervals."""
    having = [entry for entry in ranking if key in entry.setting]
    numeric = all(isinstance(entry.setting[key], int | float) for entry in having)
    values = [entry.setting[key] if numeric else describe_value(entry.setting[key]) for entry in having]
    halves = [
        0.0 if entry.score is None or entry.score.high is None else entry.score.high - entry.score.mean
        for entry in having
    ]
    figure = go.Figure(
        go.Scatter(
            x=values,
            y=[_mean(entry) for entry in having],
            error_y={"type": "data", "array": halves, "visible": any(halves)},
            mode="markers",
            text=[describe_setting(entry.setting) for entry in having],
        )
    )
    return figure.update_layout(
        title=f"{metric} against {key}", xaxis_title=key, yaxis_title=metric, height=420
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
