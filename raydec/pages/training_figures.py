"""The figures of a run's report that have epochs on the x axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from raydec.pages.figures import ATTRIBUTE_COLORS, LEGEND_BELOW
from raydec.pages.html_page import Plot, series_color

_STAGES = {"": "labeled", "_unlabeled": "unlabeled"}

History = Sequence[Mapping[str, Any]]


def loss_curves(history: History, best_epoch: int) -> Plot:
    """Every loss that the run recorded, by epoch."""
    keys = _keys(history, "train/loss_")
    figure = go.Figure()
    for number, base in enumerate(dict.fromkeys(key.removesuffix("_unlabeled") for key in keys)):
        for suffix, stage in _STAGES.items():
            if base + suffix in keys:
                name = _LOSS_NAMES.get(base.removeprefix("train/loss_"), base.removeprefix("train/loss_"))
                name = f"{name}, {stage} stage" if base + "_unlabeled" in keys else name
                figure.add_trace(
                    epoch_line(history, base + suffix, name, series_color(number), dashed=bool(suffix))
                )
    epoch_layout(figure, "loss, mean over steps", best_epoch)
    return Plot(
        "losses",
        "Training losses",
        f"Line chart of the training losses over {len(history)} epochs",
        figure,
        "Mean over the steps of each epoch. The dotted line is the epoch whose model was kept. A cluster "
        "loss near the logarithm of the number of clusters means that pseudo-labels are not learned.",
    )


_LOSS_NAMES = {
    "emotion": "emotion (1 − CCC)",
    "class": "classes (cross-entropy)",
    "cluster": "cluster (cross-entropy)",
    "reconstruction": "reconstruction",
    "triplet": "triplet",
}


def validation_curves(history: History, attributes: Sequence[str], best_epoch: int) -> Plot:
    """CCC on the validation split by epoch."""
    figure = go.Figure()
    for name in attributes:
        figure.add_trace(epoch_line(history, f"valid/ccc_{name}", name, ATTRIBUTE_COLORS.get(name)))
    if len(attributes) > 1:
        figure.add_trace(epoch_line(history, "valid/ccc", "mean", "var(--muted)", dashed=True))
    epoch_layout(figure, "CCC", best_epoch)
    best = history[best_epoch - 1]["valid/ccc"]
    return Plot(
        "validation",
        "CCC on the validation split",
        f"Line chart of validation CCC for {', '.join(attributes)} over {len(history)} epochs; mean "
        f"{best:.3f} in epoch {best_epoch}",
        figure,
        f"The model of epoch {best_epoch} was kept (dotted line); its mean is {best:.3f}.",
    )


def agreement_curves(history: History, best_epoch: int) -> Plot:
    """Agreement of successive assignments, and the share of the largest cluster, by epoch."""
    figure = go.Figure()
    shown = (("cluster/nmi_previous", "NMI to previous", 0), ("cluster/largest_share", "largest share", 1))
    keys = _keys(history, "cluster/")
    for key, name, color in shown:
        for suffix, stage in _STAGES.items():
            if key + suffix in keys:
                label = f"{name}, {stage}" if key + "_unlabeled" in keys else name
                figure.add_trace(
                    epoch_line(history, key + suffix, label, series_color(color), dashed=bool(suffix))
                )
    epoch_layout(figure, "share", best_epoch)
    figure.update_layout(yaxis={"range": [0, 1.02]})
    return Plot(
        "agreement",
        "Agreement and balance",
        "Line chart by epoch of the normalised mutual information with the previous epoch's clusters and of "
        "the share of chunks in the largest cluster, both from 0 to 1",
        figure,
        "NMI to the previous epoch's assignment: 1 means that the clusters stay the same, 0 that they are "
        "unrelated. Largest share: chunks in the largest cluster; near 1 the clustering has collapsed.",
    )


def empty_clusters(history: History, num_clusters: int, best_epoch: int) -> Plot:
    """Clusters without a chunk, by epoch."""
    figure = go.Figure()
    keys = _keys(history, "cluster/empty")
    for number, (suffix, stage) in enumerate(_STAGES.items()):
        if f"cluster/empty{suffix}" in keys:
            key, color = f"cluster/empty{suffix}", series_color(number)
            figure.add_trace(epoch_line(history, key, stage, color, dashed=bool(suffix)))
    worst = int(_largest(history, keys))
    epoch_layout(figure, "empty clusters", best_epoch)
    figure.update_layout(yaxis={"range": [-0.05 * max(1, worst), max(1, worst) * 1.05], **_tick_step(worst)})
    return Plot(
        "empty",
        "Empty clusters",
        f"Line chart of empty clusters by epoch, at most {worst} of {num_clusters}",
        figure,
        f"At most {worst} of {num_clusters} clusters had no chunk."
        if worst
        else "No cluster was ever empty.",
    )


def dependency_curves(history: History, attributes: Sequence[str], best_epoch: int) -> Plot:
    """Eta squared on the validation split, by epoch."""
    figure = go.Figure()
    for name in attributes:
        figure.add_trace(epoch_line(history, f"cluster/eta2_{name}", name, ATTRIBUTE_COLORS.get(name)))
    epoch_layout(figure, "η², by utterance", best_epoch)
    figure.update_layout(yaxis={"rangemode": "tozero"})
    return Plot(
        "dependency",
        "Emotion in the clusters",
        f"Line chart of the share of variance of {', '.join(attributes)} between clusters, by epoch",
        figure,
        "Share of an attribute's variance on the validation split that lies between the cluster head's "
        "clusters (η²); an utterance's cluster is the most frequent one of its chunks.",
    )


def drift_curve(sizes: History, best_epoch: int) -> Plot | None:
    """How far the centroids moved in each epoch; None for runs that did not record it.

    Args:
        sizes: one mapping per epoch, with its number and its ``drift``.
        best_epoch: the epoch whose model was kept.
    """
    having = [epoch for epoch in sizes if epoch.get("drift") is not None]
    if not having:
        return None
    figure = go.Figure(epoch_line(having, "drift", "drift", series_color(0)))
    epoch_layout(figure, "distance moved / spread", best_epoch)
    figure.update_layout(yaxis={"rangemode": "tozero"})
    last = having[-1]["drift"]
    return Plot(
        "drift",
        "Drift of the centroids",
        f"Line chart by epoch of how far the centroids moved since the previous epoch, relative to their "
        f"spread; {last:.2f} in the last epoch",
        figure,
        "Centroids of successive epochs are matched by distance. The distances between matched centroids "
        "are divided by the spread of the centroids around their mean. Above 1, the clusters are unrelated "
        "to the previous ones; towards 0, they settle. Embeddings move while the network learns, so some "
        "drift is normal.",
    )


def sizes_by_epoch(sizes: History, *, same_clusters: bool) -> Plot:
    """Shares of the clusters of the supervised stage, stacked.

    Args:
        sizes: one mapping per epoch, with its number and ``sizes`` by stage.
        same_clusters: whether a cluster keeps its number from epoch to epoch; if not, clusters are ordered by
            size.
    """
    stage = next((name for name in ("labeled", "pooled") if name in sizes[0]["sizes"]), "unlabeled")
    having = [epoch for epoch in sizes if stage in epoch["sizes"]]
    counts = np.array([epoch["sizes"][stage] for epoch in having], dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if not same_clusters:
        shares = -np.sort(-shares, axis=1)
    figure = go.Figure()
    for number, column in enumerate(shares.T):
        figure.add_trace(
            go.Bar(
                x=_epochs(having),
                y=column,
                name=f"cluster {number}" if same_clusters else f"{number + 1}. by size",
                marker={"color": series_color(number), "line": {"color": "var(--surface)", "width": 1}},
                hovertemplate="%{y:.1%}",
            )
        )
    figure.update_layout(
        barmode="stack",
        bargap=0.15,
        xaxis={"title": {"text": "epoch"}, **_epoch_ticks(having)},
        yaxis={"title": {"text": "share of chunks"}, "tickformat": ".0%", "range": [0, 1]},
        showlegend=False,
    )
    order = (
        "by cluster"
        if same_clusters
        else "from the largest to the smallest, because clusters get new numbers in each epoch"
    )
    return Plot(
        "sizes-by-epoch",
        "Cluster sizes",
        f"Stacked bar chart by epoch of the share of {stage} chunks in each of {shares.shape[1]} clusters; "
        f"in epoch {having[-1]['epoch']} the largest has {shares[-1].max():.0%}",
        figure,
        f"Share of the {stage} chunks in each cluster, {order}.",
    )


def epoch_line(
    history: History, key: str, name: str, color: str | None, *, dashed: bool = False
) -> go.Scatter:
    """One metric by epoch."""
    return go.Scatter(
        x=_epochs(history),
        y=[epoch.get(key) for epoch in history],
        name=name,
        # A single point would not be visible as a line.
        mode="lines+markers" if len(history) <= 30 else "lines",
        line={"color": color, "width": 2, "dash": "dash" if dashed else "solid"},
        marker={"size": 6},
        hovertemplate="%{y:.4f}",
    )


def epoch_layout(figure: go.Figure, y_title: str, best_epoch: int) -> None:
    """Axes of a chart over epochs, with a line at the best one."""
    epochs = [x for trace in figure.data for x in trace.x]
    figure.update_layout(
        xaxis={"title": {"text": "epoch"}, **_tick_step(max(epochs, default=1))},
        yaxis={"title": {"text": y_title}},
        hovermode="x unified",
        legend=LEGEND_BELOW,
        showlegend=len(figure.data) > 1,
        shapes=[
            {
                "type": "line",
                "x0": best_epoch,
                "x1": best_epoch,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": "var(--muted)", "width": 1.5, "dash": "dot"},
            }
        ],
    )


def _epochs(history: History) -> list[int]:
    return [int(epoch["epoch"]) for epoch in history]


def _epoch_ticks(history: History) -> dict[str, Any]:
    return _tick_step(max(_epochs(history)))


def _tick_step(last: int) -> dict[str, Any]:
    """Mark whole epochs only; for few epochs plotly would mark halves."""
    return {"dtick": 1} if last <= 12 else {}


def _keys(history: History, prefix: str) -> list[str]:
    """Names of the metrics with a prefix for which any epoch has a value, in order."""
    found = (key for epoch in history for key, value in epoch.items() if value is not None)
    return [key for key in dict.fromkeys(found) if key.startswith(prefix)]


def _largest(history: History, keys: Sequence[str]) -> float:
    return max((epoch[key] for epoch in history for key in keys if epoch.get(key) is not None), default=0.0)
