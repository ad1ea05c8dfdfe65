"""The figure of an encoder's layers: bars are the softmax of the logits, and the report shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from corpus_support import many, write_corpus
from encoder_support import tiny_encoder
from report_support import make_tiny_run

from raydec.features.encoder_front_end import encoder_front_end
from raydec.model.encoder_head import EncoderHead
from raydec.pages.analysis import Analysis, analyse
from raydec.pages.layer_weights import encoder_layers
from raydec.pages.run_report import report_html
from raydec.preparation import prepare_store

pytest.importorskip("transformers")


def analysis_of(folder: Path, layers: str) -> Analysis:
    """A run on hidden layers of a tiny encoder."""
    encoder = tiny_encoder(folder / "encoder", "wavlm")
    spoken = [*many(10), *many(5, "validation", "v"), *many(5, "test1", "t")]
    corpus = write_corpus(folder / "audio", spoken)
    front_end = encoder_front_end(str(encoder), layers)
    prepare_store(corpus, folder / "store", num_workers=0, quiet=True, front_end=front_end)
    settings = ("features.scale=null", "data.attributes=[arousal]", "training.epochs=1")
    return analyse(make_tiny_run(folder / "runs", folder / "store", overrides=settings))


def test_bars_are_the_softmax_of_the_logits_by_layer_number(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path, "1,3")
    trained = analysis.run.trained
    trunk = trained.networks[0][1].encoder
    assert isinstance(trunk, EncoderHead) and trunk.layer_logits is not None
    with torch.no_grad():
        trunk.layer_logits.copy_(torch.tensor([-1.0, 0.5]))
    plot = encoder_layers(trained)
    assert plot is not None
    assert isinstance(plot.content, go.Figure)
    (bars,) = plot.content.data
    assert list(bars.x) == ["1", "3"]
    expected = np.exp([-1.0, 0.5]) / np.exp([-1.0, 0.5]).sum()
    np.testing.assert_allclose(bars.y, expected, rtol=1e-6)
    assert "layer 3 has the largest, 81.8%" in plot.alternative
    assert 'id="figure-layer-weights"' in report_html(analysis)


def test_one_layer_has_no_figure(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path, "last")
    assert encoder_layers(analysis.run.trained) is None
    assert "layer-weights" not in report_html(analysis)
