"""The report of a finished run: one HTML file with curves, scores, clusters and their relation to emotion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raydec.pages.analysis import NUM_RESAMPLES, SEED, Analysis, labeled_columns
from raydec.pages.class_blocks import class_curves, class_table, confusion_matrix
from raydec.pages.cluster_map import cluster_map
from raydec.pages.figures import (
    ccc_intervals,
    classes_by_cluster,
    cluster_sizes,
    emotion_by_cluster,
    predicted_against_true,
)
from raydec.pages.html_page import Block, Section, render_page
from raydec.pages.layer_weights import encoder_layers
from raydec.pages.nearest import nearest_chunks, nearest_table
from raydec.pages.page_file import check_page_path, write_page
from raydec.pages.run_head import notices, num_clusters, subtitle, tiles
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
_MANY_CLUSTERS = 16


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
    return write_page(path, report_html(analysis, audio=audio), "report", "--out")


def report_path(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Path of the report. Call it first, so that a bad path is refused before minutes of predictions.

    Raises:
        UserError: no file can be written there.
    """
    path = Path(run_dir) / REPORT_FILE if out is None else Path(out)
    return check_page_path(path, "report", "--out")


def report_html(analysis: Analysis, *, audio: bool = False) -> str:
    """The report as one HTML document; the same analysis gives the same document."""
    run = analysis.run
    sections = [_training(analysis)]
    if (layers := encoder_layers(run.trained)) is not None:
        sections.append(
            Section("Encoder layers", "How much training made each stored hidden layer count.", [[layers]])
        )
    if run.attributes:
        sections.append(_scores(analysis))
    if run.outputs.classes:
        sections.append(_classes(analysis))
    if analysis.view.chunk_clusters is not None:
        sections.append(_clusters(analysis))
    sections.append(_map(analysis))
    if analysis.dependencies or analysis.emotion is not None:
        sections.append(_emotion_by_cluster(analysis))
    if analysis.view.distances is not None:
        sections.append(_nearest(analysis, audio))
    sections.append(_settings(analysis))
    return render_page(
        f"Run {run.name}",
        sections,
        subtitle=subtitle(run),
        notices=notices(analysis, audio),
        tiles=tiles(analysis),
        footer=f"Made by raydec {__version__}. This file is self-contained and loads nothing from elsewhere.",
    )


def _training(analysis: Analysis) -> Section:
    run = analysis.run
    best = run.summary["best_epoch"]
    curves: list[Block] = [loss_curves(run.history, best)]
    if run.attributes:
        curves.append(validation_curves(run.history, run.attributes, best))
    curves += [class_curves(run.history, group, best) for group in run.outputs.classes]
    return Section(
        "Training",
        "Training losses, and the score on utterances that were not trained on.",
        [curves],
    )


def _classes(analysis: Analysis) -> Section:
    split = analysis.view.split
    matrices: list[Block] = [
        confusion_matrix(group, result, split) for group, result in analysis.classes[split].items()
    ]
    return Section(
        "Classes",
        "How well emotion classes are told apart. Macro-F1 and unweighted average recall (UAR) give every "
        "class the same weight, however rare it is: guessing among n classes has a UAR of 1/n."
        f"{_shared_speakers(analysis)}",
        [[class_table(analysis.classes), *matrices]],
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
        [
            [ccc_intervals(analysis.estimates), ccc_table(analysis.estimates, analysis.raters)],
            scatters,
            confusions,
        ],
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
    sizes = cluster_sizes(view.chunk_clusters, num_clusters(analysis), view.split)
    if not run.trains_clusters:
        return Section(
            "Clusters",
            "This model was trained without clusters. K-means was run once on its embeddings afterwards, for "
            "comparison with models that cluster.",
            [[sizes]],
        )
    over_epochs: list[Block] = [agreement_curves(run.history, best)]
    if run.attributes:
        over_epochs.append(dependency_curves(run.history, run.attributes, best))
    if (drift := drift_curve(run.sizes, best)) is not None:
        over_epochs.append(drift)
    balance: list[Block] = [empty_clusters(run.history, num_clusters(analysis), best), sizes]
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
    centroids = run.trained.centroids
    return Section(
        "Cluster map",
        "Chunks with similar embeddings lie close together. Colour by an attribute and look for a gradient "
        "or regions. Colour by speaker: islands of one colour mean that voices are clustered, not emotions.",
        [
            [
                cluster_map(
                    analysis.view,
                    None if centroids is None else centroids.astype(np.float32),
                    run.trained.front_end,
                    run.trained.chunks,
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
    chunks = nearest_chunks(view, run.trained.front_end, run.trained.chunks)
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
