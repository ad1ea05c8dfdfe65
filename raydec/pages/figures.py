"""The figures of a run's report about one split, except the cluster map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64, Int64

from raydec.evaluation.statistics import CccEstimate
from raydec.learning.randomness import generator_for
from raydec.pages.html_page import Plot, plot_text, series_color

ATTRIBUTE_COLORS = {"arousal": "var(--c1)", "dominance": "var(--c4)", "valence": "var(--c2)"}
MAX_POINTS = 1000
LEGEND_BELOW = {
    "orientation": "h",
    "x": 0,
    "xanchor": "left",
    "yref": "container",
    "y": 0,
    "yanchor": "bottom",
}


def ccc_intervals(estimates: Mapping[str, Mapping[str, CccEstimate]]) -> Plot:
    """CCC with intervals; ``estimates`` by split, then by attribute."""
    attributes = list(dict.fromkeys(name for found in estimates.values() for name in found))
    figure = go.Figure()
    for place, name in enumerate(attributes):
        having = {split: found[name] for split, found in estimates.items() if name in found}
        middle = [estimate.ccc for estimate in having.values()]
        figure.add_trace(
            go.Scatter(
                x=[
                    number + (place - (len(attributes) - 1) / 2) * 0.2
                    for number in _places(estimates, having)
                ],
                y=middle,
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, e.high - e.ccc) for e in having.values()],
                    "arrayminus": [max(0.0, e.ccc - e.low) for e in having.values()],
                    "thickness": 2,
                    "width": 6,
                },
                mode="markers",
                name=name,
                marker={"size": 11, "color": ATTRIBUTE_COLORS.get(name)},
                text=[f"{name}: {e.ccc:.3f} ({e.low:.3f} to {e.high:.3f})" for e in having.values()],
                hoverinfo="text",
            )
        )
    ticks = {"tickvals": list(range(len(estimates))), "ticktext": [plot_text(split) for split in estimates]}
    figure.update_layout(
        xaxis={**ticks, "range": [-0.5, len(estimates) - 0.5], "showgrid": False},
        yaxis={"title": {"text": "CCC"}, "rangemode": "tozero"},
        legend=LEGEND_BELOW,
    )
    said = "; ".join(
        f"{split} {name} {e.ccc:.3f} from {e.low:.3f} to {e.high:.3f}"
        for split, found in estimates.items()
        for name, e in found.items()
    )
    return Plot(
        "ccc",
        "CCC with 95% intervals",
        f"Dot plot of CCC by split: {said}",
        figure,
        "Bars are 95% percentile intervals of a bootstrap that draws whole speakers, because utterances of "
        "one speaker resemble each other. The table shows what was drawn.",
    )


def _places(all_splits: Mapping[str, Any], some: Mapping[str, Any]) -> list[int]:
    order = list(all_splits)
    return [order.index(split) for split in some]


def cluster_sizes(chunk_clusters: Int64[np.ndarray, " chunk"], num_clusters: int, split: str) -> Plot:
    """Chunks per cluster of a split."""
    sizes = np.bincount(chunk_clusters, minlength=num_clusters)
    figure = go.Figure(
        go.Bar(
            x=[str(number) for number in range(len(sizes))],
            y=sizes / max(1, sizes.sum()),
            marker={"color": [series_color(number) for number in range(len(sizes))]},
            text=[f"cluster {number}: {size:,} chunks" for number, size in enumerate(sizes)],
            textposition="none",
            hoverinfo="text",
        )
    )
    figure.update_layout(
        xaxis={"title": {"text": "cluster"}, "type": "category"},
        yaxis={"title": {"text": "share of chunks"}, "tickformat": ".0%"},
    )
    used = int((sizes > 0).sum())
    return Plot(
        "sizes",
        f"Cluster sizes on {split}",
        f"Bar chart of the share of chunks in each of {len(sizes)} clusters; the largest has "
        f"{sizes.max() / max(1, sizes.sum()):.0%}, {used} are not empty",
        figure,
        f"Chunks of split {split} by nearest centroid of the kept model; {used} of {len(sizes)} clusters "
        "are not empty.",
    )


def emotion_by_cluster(
    name: str,
    values: Float64[np.ndarray, " utterance"],
    clusters: Int64[np.ndarray, " utterance"],
    caption: str,
    seed: int,
) -> Plot:
    """Boxes of an attribute by cluster, in order of the clusters' means, with utterances as points."""
    known = ~np.isnan(values)
    values, clusters = values[known], clusters[known]
    means = {int(number): float(values[clusters == number].mean()) for number in np.unique(clusters)}
    order = sorted(means, key=lambda number: (means[number], number))
    figure = go.Figure()
    for place, number in enumerate(order):
        figure.add_trace(_box(place, number, values[clusters == number]))
    figure.add_trace(_strip(values, np.array([order.index(number) for number in clusters]), seed, name))
    figure.update_layout(
        xaxis={
            "title": {"text": "cluster, from low to high mean"},
            "tickvals": list(range(len(order))),
            "ticktext": [str(number) for number in order],
            "showgrid": False,
        },
        yaxis={"title": {"text": name}},
        showlegend=False,
    )
    return Plot(
        f"emotion-{name}",
        f"{name.capitalize()} by cluster",
        f"Box plot of {name} by cluster; cluster means go from {means[order[0]]:.2f} (cluster {order[0]}) to "
        f"{means[order[-1]]:.2f} (cluster {order[-1]})",
        figure,
        caption,
        height_px=360,
    )


def _box(place: int, number: int, values: Float64[np.ndarray, " utterance"]) -> go.Box:
    low, first, middle, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    return go.Box(
        x=[place],
        q1=[first],
        median=[middle],
        q3=[third],
        mean=[values.mean()],
        lowerfence=[low],
        upperfence=[high],
        name=f"cluster {number} ({len(values):,} utterances)",
        line={"color": series_color(number), "width": 1.5},
        fillcolor="rgba(0,0,0,0)",
        width=0.62,
    )


def _strip(
    values: Float64[np.ndarray, " utterance"],
    places: Int64[np.ndarray, " utterance"],
    seed: int,
    name: str,
) -> go.Scatter:
    rng = generator_for(seed, "strip", name)
    chosen = _sample(len(values), rng)
    return go.Scatter(
        x=places[chosen] + rng.uniform(-0.22, 0.22, len(chosen)),
        y=values[chosen],
        mode="markers",
        marker={"size": 4, "color": "var(--muted)", "opacity": 0.45},
        hoverinfo="skip",
    )


def classes_by_cluster(
    emotions: Sequence[str | None], clusters: Int64[np.ndarray, " utterance"], caption: str
) -> Plot:
    """Shares of the emotion classes within each cluster."""
    pairs = [
        (emotion, int(cluster))
        for emotion, cluster in zip(emotions, clusters, strict=True)
        if emotion is not None
    ]
    classes = sorted({emotion for emotion, _ in pairs})
    numbers = sorted({cluster for _, cluster in pairs})
    counts = np.zeros((len(numbers), len(classes)))
    for emotion, cluster in pairs:
        counts[numbers.index(cluster), classes.index(emotion)] += 1
    shares = counts / counts.sum(axis=1, keepdims=True)
    labels = [plot_text(name, 24) for name in classes]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=[str(place) for place in range(len(classes))],
            y=[str(number) for number in numbers],
            text=[
                [
                    f"cluster {number}: {int(count)} of {int(row.sum())} are {label}"
                    for count, label in zip(row, labels, strict=True)
                ]
                for number, row in zip(numbers, counts, strict=True)
            ],
            hoverinfo="text",
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            colorbar={"tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        )
    )
    figure.update_layout(
        xaxis={
            "title": {"text": "emotion class"},
            "type": "category",
            "tickvals": [str(place) for place in range(len(classes))],
            "ticktext": labels,
            "showgrid": False,
        },
        yaxis={"title": {"text": "cluster"}, "type": "category", "autorange": "reversed", "showgrid": False},
    )
    return Plot(
        "emotion-classes",
        "Emotion classes by cluster",
        f"Heat map of the share of {len(classes)} emotion classes within each of {len(numbers)} clusters",
        figure,
        caption,
        height_px=max(320, 26 * len(numbers) + 90),
    )


def predicted_against_true(
    name: str,
    scores: Float64[np.ndarray, " utterance"],
    labels: Float64[np.ndarray, " utterance"],
    ids: Sequence[str | None],
    estimate: CccEstimate,
    seed: int,
) -> Plot:
    """Scatter plot of predictions over labels, with the line of equality."""
    known = np.flatnonzero(~np.isnan(labels))
    chosen = known[_sample(len(known), generator_for(seed, "scatter", name))]
    low = float(min(labels[known].min(), scores[known].min()))
    high = float(max(labels[known].max(), scores[known].max()))
    pad = 0.04 * (high - low or 1.0)
    ends = [low - pad, high + pad]
    figure = go.Figure(
        [
            go.Scatter(
                x=ends, y=ends, mode="lines", line={"color": "var(--muted)", "dash": "dot"}, hoverinfo="skip"
            ),
            go.Scatter(
                x=np.round(labels[chosen], 3),
                y=np.round(scores[chosen], 3),
                mode="markers",
                marker={"size": 6, "color": ATTRIBUTE_COLORS.get(name), "opacity": 0.6},
                text=[plot_text(ids[row]) for row in chosen],
                hovertemplate="%{text}<br>true %{x}, predicted %{y}<extra></extra>",
            ),
        ]
    )
    figure.update_layout(
        xaxis={"title": {"text": f"true {name}"}, "range": ends, "constrain": "domain"},
        yaxis={
            "title": {"text": f"predicted {name}"},
            "range": ends,
            "scaleanchor": "x",
            "constrain": "domain",
        },
        showlegend=False,
    )
    shown = (
        ""
        if len(chosen) == len(known)
        else f" A random {len(chosen):,} of {len(known):,} utterances are drawn."
    )
    return Plot(
        f"scatter-{name}",
        f"Predicted {name}",
        f"Scatter plot of predicted over true {name} for {len(chosen)} utterances; CCC {estimate.ccc:.3f}",
        figure,
        f"CCC {estimate.ccc:.3f} ({estimate.low:.3f} to {estimate.high:.3f}) over {len(known):,} utterances."
        + shown,
        height_px=360,
    )


def _sample(count: int, rng: np.random.Generator) -> Int64[np.ndarray, " chosen"]:
    if count <= MAX_POINTS:
        return np.arange(count)
    return np.sort(rng.choice(count, size=MAX_POINTS, replace=False))
