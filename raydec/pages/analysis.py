"""The results that a run's report shows: scores with intervals, and details of one split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raydec.evaluation.agreement import RaterAgreement, rater_agreement
from raydec.evaluation.classes import class_results
from raydec.evaluation.result import ClassResult
from raydec.evaluation.split_choice import choose_splits
from raydec.evaluation.statistics import (
    CccEstimate,
    bootstrap_ccc,
)
from raydec.learning.dependency import Dependency, EmotionInformation, cluster_dependency, emotion_information
from raydec.learning.randomness import generator_for
from raydec.pages.cluster_map import choose_chunks
from raydec.pages.finished_run import FinishedRun, SplitView, open_run, score_split

# The same as in ``evaluate``, so that both show the same intervals.
SEED = 0
NUM_RESAMPLES = 2000

Progress = Callable[[int, int], None]
"""Called with the number of utterances predicted so far, and the total."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """A run, its scores, and details of one split.

    Attributes:
        run: the run.
        view: the split shown in detail, with embeddings.
        estimates: CCC by split and attribute, of labeled attributes only.
        classes: scores of classes, by split and group.
        dependencies: dependency of each attribute on the utterances' clusters; empty without clusters.
        emotion: mutual information of emotion class and cluster; None without clusters or classes.
        raters: agreement of the annotators, by split and attribute, where the store has their ratings.
    """

    run: FinishedRun
    view: SplitView
    estimates: dict[str, dict[str, CccEstimate]]
    classes: dict[str, dict[str, ClassResult]]
    dependencies: dict[str, Dependency]
    emotion: EmotionInformation | None
    raters: dict[str, dict[str, RaterAgreement]]


def analyse(
    run_dir: str | Path,
    *,
    store: str | Path | None = None,
    split: str | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Predict the run's splits and compute what the report shows.

    Args:
        run_dir: a finished run's directory.
        store: present location of its feature store; default: the one in the run's config.
        split: the split to show in detail, in any spelling; default: the first test split, else validation.
        progress: called after each step of the predictions.

    Raises:
        UserError: the run is not finished, a file is missing, or the split has no labels.
    """
    run = open_run(Path(run_dir), None if store is None else Path(store))
    looked_at = run.scored_splits[min(1, len(run.scored_splits) - 1)]
    if split is not None:
        (looked_at,) = choose_splits(run.store, run.outputs, [split])
    names = list(dict.fromkeys((*run.scored_splits, looked_at)))
    total = sum(len(run.rows(name)) for name in names)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    estimates, classes, raters, looked = {}, {}, {}, None
    for name in names:
        num_chunks = len(run.rows(name)) * run.trained.chunks.num_chunks
        keep = choose_chunks(num_chunks, SEED) if name == looked_at else None
        view = score_split(run, name, keep=keep, progress=advance)
        estimates[name], classes[name] = _estimates(view), _classes(view)
        raters[name] = _raters(view)
        looked = view if name == looked_at else looked
    assert looked is not None
    return Analysis(run, looked, estimates, classes, _dependencies(looked), _emotion(looked), raters)


def _estimates(view: SplitView) -> dict[str, CccEstimate]:
    return {
        name: bootstrap_ccc(
            view.scores[:, column],
            view.labels[:, column],
            view.column("speaker"),
            generator_for(SEED, "bootstrap", view.split, name),
            num_resamples=NUM_RESAMPLES,
        )
        for column, name in labeled_columns(view)
    }


def _raters(view: SplitView) -> dict[str, RaterAgreement]:
    found = {name: rater_agreement(view.table, name) for _, name in labeled_columns(view)}
    return {name: raters for name, raters in found.items() if raters is not None}


def _classes(view: SplitView) -> dict[str, ClassResult]:
    speakers = view.column("speaker")
    return class_results(view.outputs, view.split, view.table, view.scores, speakers, SEED, NUM_RESAMPLES)


def _dependencies(view: SplitView) -> dict[str, Dependency]:
    clusters = view.clusters
    if clusters is None:
        return {}
    return {
        name: cluster_dependency(
            view.labels[:, column],
            clusters,
            generator_for(SEED, "permutation", view.split, name),
            speakers=view.column("speaker"),
            num_permutations=NUM_RESAMPLES,
        )
        for column, name in labeled_columns(view)
    }


def _emotion(view: SplitView) -> EmotionInformation | None:
    clusters = view.clusters
    if clusters is None:
        return None
    information = emotion_information(view.column("emotion"), clusters)
    return information if information.num_utterances else None


def labeled_columns(view: SplitView) -> list[tuple[int, str]]:
    """Column and name of the attributes that the split has labels for."""
    return [
        (column, name)
        for column, name in enumerate(view.attributes)
        if not np.isnan(view.labels[:, column]).all()
    ]
