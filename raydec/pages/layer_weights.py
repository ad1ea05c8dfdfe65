"""The figure of a run's report that shows how much each hidden layer of a pretrained encoder counts."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from raydec.features.pretrained import PretrainedFrontEnd
from raydec.model.encoder_head import EncoderHead
from raydec.model.trained import TrainedModel
from raydec.model.tuned_trunk import TunedTrunk
from raydec.pages.html_page import Plot, series_color


def encoder_layers(trained: TrainedModel) -> Plot | None:
    """The learned layer weights of a model; None without an encoder, and with only one layer of it."""
    trunk, front_end = trained.networks[0][1].encoder, trained.front_end
    if not isinstance(trunk, EncoderHead | TunedTrunk) or not isinstance(front_end, PretrainedFrontEnd):
        return None
    if len(front_end.layers) < 2:
        return None
    return _bars(front_end.layers, trunk.layer_weights().tolist())


def _bars(layers: Sequence[int], weights: Sequence[float]) -> Plot:
    figure = go.Figure(
        go.Bar(
            x=[str(layer) for layer in layers],
            y=list(weights),
            marker={"color": series_color(0)},
            text=[f"layer {layer}: {weight:.1%}" for layer, weight in zip(layers, weights, strict=True)],
            textposition="none",
            hoverinfo="text",
        )
    )
    figure.add_hline(y=1 / len(layers), line={"color": "var(--muted)", "dash": "dot", "width": 1})
    figure.update_layout(
        xaxis={"title": {"text": "hidden layer of the encoder"}, "type": "category"},
        yaxis={"title": {"text": "weight"}, "tickformat": ".0%", "rangemode": "tozero"},
    )
    weight, layer = max(zip(weights, layers, strict=True), key=lambda pair: pair[0])
    return Plot(
        "layer-weights",
        "Weights of the encoder's layers",
        f"Bar chart of the weight of each of {len(layers)} hidden layers; layer {layer} has the largest, "
        f"{weight:.1%}",
        figure,
        "Softmax weights of the kept model; they add up to 100%. Layer 0 enters the encoder's first layer. "
        f"The dotted line is where training began: every layer at {1 / len(layers):.1%}.",
    )
