"""The head of a run's report: the model, warnings, and the main numbers."""

from __future__ import annotations

import numpy as np

from raydec.learning.targets.registry import selection_metric
from raydec.pages.analysis import Analysis
from raydec.pages.finished_run import FinishedRun
from raydec.pages.html_page import Tile

# Scores on another processor differ in the sixth digit; more means other data or another model.
_SCORE_TOLERANCE = 1e-3
_KINDS = {
    "deepemocluster": "DeepEmoCluster",
    "regressor": "CNN regressor",
    "autoencoder": "autoencoder",
    "vae": "variational autoencoder",
}


def subtitle(run: FinishedRun) -> str:
    """The kind of model and its training corpus."""
    spec = run.trained.networks[0][0]
    kind = _KINDS.get(run.config.model.kind, run.config.model.kind)
    clusters = f" with {spec.num_clusters} clusters" if run.trains_clusters else ""
    temporal = run.config.model.temporal
    layer = "" if temporal == "none" else f", temporal layer {temporal}"
    layer += ", attentive pooling" if run.config.model.pooling == "attentive" else ""
    return (
        f"{kind}{clusters}{layer}, trained for {run.outputs.label} on {run.store.corpus_name}, "
        f"{run.summary['epochs']} epochs"
    )


def notices(analysis: Analysis, audio: bool) -> list[str]:
    """Warnings that apply to all numbers of the page."""
    run, view = analysis.run, analysis.view
    found = []
    if run.store.synthetic:
        found.append(
            f"SYNTHETIC speech: the corpus ({run.store.corpus_name}) was made by a program. These numbers "
            "show that the software runs; they say nothing about human speech."
        )
    if view.split in run.config.data.train_split:
        found.append(
            f"The model was trained on split {view.split}: these results do not carry over to new speech."
        )
    if audio:
        found.append(
            "This file contains recorded speech. Check the licence of the corpus before you pass it on."
        )
    return found + _differences(analysis)


def _differences(analysis: Analysis) -> list[str]:
    found = []
    for split in analysis.estimates:
        recorded = analysis.run.recorded_scores(split)
        now = {name: estimate.ccc for name, estimate in analysis.estimates[split].items()}
        now |= {f"f1_{group}": r.scores.f1.value for group, r in analysis.classes[split].items()}
        found += [
            f"{split} {name} {value:.4f} instead of {recorded[name]:.4f}"
            for name, value in now.items()
            if name in recorded and abs(value - recorded[name]) > _SCORE_TOLERANCE
        ]
    if not found:
        return []
    measure = "CCC" if analysis.run.attributes else "scores"
    return [
        f"The model does not reproduce the {measure} that the run recorded: {'; '.join(found)}. The feature "
        "store or the model may have changed since."
    ]


def tiles(analysis: Analysis) -> list[Tile]:
    """The numbers at the top of the page."""
    run, view = analysis.run, analysis.view
    found = [
        Tile(
            f"CCC {name}, {view.split}",
            f"{estimate.ccc:.3f}",
            f"95% from {estimate.low:.3f} to {estimate.high:.3f}",
        )
        for name, estimate in analysis.estimates[view.split].items()
    ]
    found += [
        Tile(
            f"Macro-F1 {group}, {view.split}",
            f"{result.scores.f1.value:.3f}",
            f"95% from {result.scores.f1.low:.3f} to {result.scores.f1.high:.3f}",
        )
        for group, result in analysis.classes[view.split].items()
    ]
    best, epochs = run.summary["best_epoch"], run.summary["epochs"]
    selected = run.history[best - 1][f"valid/{selection_metric(run.config)}"]
    measure = "mean validation CCC" if run.attributes else "validation macro-F1"
    found.append(Tile("Epoch kept", f"{best} of {epochs}", f"{measure} {selected:.3f}"))
    if view.chunk_clusters is not None:
        used = len(np.unique(view.chunk_clusters))
        counts = f"{used} of {num_clusters(analysis)}"
        found.append(Tile("Clusters used", counts, f"by chunks of {view.split}"))
    return found


def num_clusters(analysis: Analysis) -> int:
    """Clusters of the model."""
    centroids = analysis.run.trained.centroids
    return analysis.run.trained.networks[0][0].num_clusters if centroids is None else len(centroids)
