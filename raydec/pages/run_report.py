"""The report of a finished run: one HTML file with curves, scores, clusters and their relation to emotion."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from raydec.errors import UserError
from raydec.files.atomic import write_text
from raydec.pages.analysis import NUM_RESAMPLES, SEED, Analysis, labeled_columns
from raydec.pages.cluster_map import cluster_map
from raydec.pages.figures import (
    ccc_intervals,
    classes_by_cluster,
    cluster_sizes,
    emotion_by_cluster,
    predicted_against_true,
)
from raydec.pages.finished_run import FinishedRun
from raydec.pages.html_page import Block, Section, Tile, render_page
from raydec.pages.nearest import nearest_chunks, nearest_table
from raydec.pages.tables import (
    ccc_table,
    confusion_table,
    dependency_sentence,
    environment_table,
    information_sentence,
    run_table,
    settings_details,
    settings_table,
)
from raydec.pages.training_figures import (
    agreement_curves,
    dependency_curves,
    drift_curve,
    empty_clusters,
    loss_curves,
    sizes_by_epoch,
    validation_curves,
)
from raydec.splits import joint_name
from raydec.version import __version__

REPORT_FILE = "report.html"
# CCC on another processor differs in the sixth digit; a larger difference means other data or another model.
_CCC_TOLERANCE = 1e-3
_MANY_CLUSTERS = 16
_KINDS = {
    "deepemocluster": "DeepEmoCluster",
    "regressor": "CNN regressor",
    "autoencoder": "autoencoder",
    "vae": "variational autoencoder",
}


def write_report(analysis: Analysis, out: str | Path | None = None, *, audio: bool = False) -> Path:
    """Write the HTML file atomically.

    Args:
        analysis: what to show.
        out: the file; default: ``report.html`` in the run directory.
        audio: embed clips of the chunks nearest to each centroid.

    Returns:
        The path of the file.

    Raises:
        UserError: the file cannot be written.
    """
    path = report_path(analysis.run.folder, out)
    text = report_html(analysis, audio=audio)
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"cannot write report {path}: {error.strerror or error}; name another with --out"
        ) from None
    return path


def report_path(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Path of the report. Call it first, so that a bad path is refused before minutes of predictions.

    Raises:
        UserError: no file can be written there.
    """
    path = Path(run_dir) / REPORT_FILE if out is None else Path(out)
    folder = path.absolute().parent
    if path.is_dir():
        raise UserError(f"cannot write report {path}: it is a folder; name a file with --out")
    if not folder.is_dir():
        raise UserError(f"cannot write report {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise UserError(
            f"cannot write report {path}: no permission to write to {folder}; name another with --out"
        )
    return path


def report_html(analysis: Analysis, *, audio: bool = False) -> str:
    """The report as one HTML document; the same analysis gives the same document."""
    run = analysis.run
    sections = [_training(analysis), _scores(analysis)]
    if analysis.view.chunk_clusters is not None:
        sections.append(_clusters(analysis))
    sections.append(_map(analysis))
    if analysis.dependencies:
        sections.append(_emotion_by_cluster(analysis))
    if analysis.view.distances is not None:
        sections.append(_nearest(analysis, audio))
    sections.append(_settings(analysis))
    return render_page(
        f"Run {run.name}",
        sections,
        subtitle=_subtitle(run),
        notices=_notices(analysis, audio),
        tiles=_tiles(analysis),
        footer=f"Made by raydec {__version__}. This file is self-contained and loads nothing from elsewhere.",
    )


def _subtitle(run: FinishedRun) -> str:
    spec = run.saved.networks[0][0]
    kind = _KINDS.get(run.config.model.kind, run.config.model.kind)
    clusters = f" with {spec.num_clusters} clusters" if run.trains_clusters else ""
    temporal = run.config.model.temporal
    layer = "" if temporal == "none" else f", temporal layer {temporal}"
    return (
        f"{kind}{clusters}{layer}, trained for {', '.join(run.attributes)} on {run.store.corpus_name}, "
        f"{run.summary['epochs']} epochs"
    )


def _notices(analysis: Analysis, audio: bool) -> list[str]:
    run, view = analysis.run, analysis.view
    notices = []
    if run.store.synthetic:
        notices.append(
            f"SYNTHETIC speech: the corpus ({run.store.corpus_name}) was made by a program. These numbers "
            "show that the software runs; they say nothing about human speech."
        )
    if view.split in run.config.data.train_split:
        notices.append(f"Split {view.split} was trained on: these results do not carry over to new speech.")
    if audio:
        notices.append(
            "This file contains recorded speech. Check the licence of the corpus before you pass it on."
        )
    return notices + _differences(analysis)


def _differences(analysis: Analysis) -> list[str]:
    found = [
        f"{split} {name} {estimate.ccc:.4f} instead of {recorded[name]:.4f}"
        for split, estimates in analysis.estimates.items()
        if (recorded := analysis.run.recorded_ccc(split)) is not None
        for name, estimate in estimates.items()
        if abs(estimate.ccc - recorded[name]) > _CCC_TOLERANCE
    ]
    if not found:
        return []
    return [
        f"The model does not reproduce the CCC that the run recorded: {'; '.join(found)}. The feature store "
        "or the model may have changed since."
    ]


def _tiles(analysis: Analysis) -> list[Tile]:
    run, view = analysis.run, analysis.view
    tiles = [
        Tile(
            f"CCC {name}, {view.split}",
            f"{estimate.ccc:.3f}",
            f"95% from {estimate.low:.3f} to {estimate.high:.3f}",
        )
        for name, estimate in analysis.estimates[view.split].items()
    ]
    best, epochs = run.summary["best_epoch"], run.summary["epochs"]
    mean = run.history[best - 1]["valid/ccc"]
    tiles.append(Tile("Best epoch", f"{best} of {epochs}", f"mean validation CCC {mean:.3f}"))
    if view.chunk_clusters is not None:
        used = len(np.unique(view.chunk_clusters))
        num_clusters = _num_clusters(analysis)
        tiles.append(Tile("Clusters used", f"{used} of {num_clusters}", f"by chunks of {view.split}"))
    return tiles


def _num_clusters(analysis: Analysis) -> int:
    centroids = analysis.run.saved.centroids
    return analysis.run.saved.networks[0][0].num_clusters if centroids is None else len(centroids)


def _training(analysis: Analysis) -> Section:
    run = analysis.run
    best = run.summary["best_epoch"]
    return Section(
        "Training",
        "Training losses, and the score on utterances that were not trained on.",
        [[loss_curves(run.history, best), validation_curves(run.history, run.attributes, best)]],
    )


def _scores(analysis: Analysis) -> Section:
    view = analysis.view
    estimates = analysis.estimates[view.split]
    scatters: list[Block] = [
        predicted_against_true(
            name,
            view.scores[:, column],
            view.labels[:, column],
            view.column("utterance_id"),
            estimates[name],
            SEED,
        )
        for column, name in labeled_columns(view)
    ]
    confusions: list[Block] = [
        confusion_table(name, view.scores[:, column], view.labels[:, column])
        for column, name in labeled_columns(view)
    ]
    shared = _shared_speakers(analysis)
    return Section(
        "Scores",
        "The concordance correlation coefficient (CCC) is 1 for perfect predictions, 0 for unrelated ones. "
        "It penalises a wrong spread and a wrong mean, not only weak correlation. Below the intervals, split "
        f"{view.split} in detail: predictions over labels, and confusion of low, middle and high.{shared}",
        [[ccc_intervals(analysis.estimates), ccc_table(analysis.estimates)], scatters, confusions],
    )


def _shared_speakers(analysis: Analysis) -> str:
    """A warning if speakers of the analysed split were trained on, else empty."""
    run, view = analysis.run, analysis.view
    splits = run.config.data.train_split
    trained = run.store.utterances.take(run.store.rows(splits))["speaker"]
    known = set(view.column("speaker")) - {None}
    shared = known & set(trained.to_pylist())
    if not shared or view.split in splits:
        return ""
    return (
        f" Note that {len(shared)} of its {len(known)} speakers are in split {joint_name(splits)} too: these "
        "scores do not measure performance on new voices."
    )


def _clusters(analysis: Analysis) -> Section:
    run, view = analysis.run, analysis.view
    assert view.chunk_clusters is not None
    best = run.summary["best_epoch"]
    sizes = cluster_sizes(view.chunk_clusters, _num_clusters(analysis), view.split)
    if not run.trains_clusters:
        return Section(
            "Clusters",
            "This model was trained without clusters. K-means was run once on its embeddings afterwards, for "
            "comparison with models that cluster.",
            [[sizes]],
        )
    over_epochs: list[Block] = [
        agreement_curves(run.history, best),
        dependency_curves(run.history, run.attributes, best),
    ]
    if (drift := drift_curve(run.sizes, best)) is not None:
        over_epochs.append(drift)
    balance: list[Block] = [empty_clusters(run.history, _num_clusters(analysis), best), sizes]
    if run.sizes:
        balance.insert(1, sizes_by_epoch(run.sizes, same_clusters=run.config.head_mode == "align"))
    return Section(
        "Clusters",
        "In a healthy clustering every cluster is used, none holds most of the chunks, and agreement from "
        "epoch to epoch rises.",
        [over_epochs, balance],
    )


def _map(analysis: Analysis) -> Section:
    run = analysis.run
    centroids = run.saved.centroids
    return Section(
        "Cluster map",
        "Chunks with similar embeddings lie close together. Colour by an attribute and look for a gradient "
        "or regions. Colour by speaker: islands of one colour mean that voices are clustered, not emotions.",
        [
            [
                cluster_map(
                    analysis.view,
                    None if centroids is None else centroids.astype(np.float32),
                    run.saved.front_end,
                    run.saved.chunks,
                    seed=SEED,
                )
            ]
        ],
    )


def _emotion_by_cluster(analysis: Analysis) -> Section:
    view, clusters = analysis.view, analysis.view.clusters
    assert clusters is not None
    blocks: list[Block] = [
        emotion_by_cluster(
            name,
            view.labels[:, column],
            clusters,
            dependency_sentence(name, analysis.dependencies[name], NUM_RESAMPLES),
            SEED,
        )
        for column, name in labeled_columns(view)
    ]
    crowded = len(np.unique(clusters)) > _MANY_CLUSTERS
    classes: list[Block] = []
    if analysis.emotion is not None:
        sentence = information_sentence(analysis.emotion)
        classes.append(classes_by_cluster(view.column("emotion"), clusters, sentence))
    return Section(
        "Emotion by cluster",
        f"Labels of the utterances of split {view.split} by cluster; an utterance belongs to the cluster of "
        "most of its chunks. Boxes extend from the first to the third quartile, whiskers from the 5th to the "
        "95th percentile; the dashed line is the mean.",
        # Many boxes need the whole width.
        [*([[block] for block in blocks] if crowded else [blocks]), classes],
    )


def _nearest(analysis: Analysis, audio: bool) -> Section:
    run, view = analysis.run, analysis.view
    chunks = nearest_chunks(view, run.saved.front_end, run.saved.chunks)
    return Section("Nearest utterances", "", [[nearest_table(view, chunks, with_audio=audio)]])


def _settings(analysis: Analysis) -> Section:
    run = analysis.run
    return Section(
        "Settings and environment",
        "",
        [
            [settings_table(run.config)],
            [run_table(run), environment_table()],
            [settings_details(run.config)],
        ],
    )
