"""Score a model on the labeled splits of a feature store, with intervals, by speaker and by duration.

Scores are per utterance: predictions are means over an utterance's chunks, and its cluster is the most
frequent one of its chunks. :mod:`raydec.evaluation.output` writes the result as JSON and Markdown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from raydec.errors import UserError
from raydec.evaluation.agreement import rater_agreement
from raydec.evaluation.classes import class_results
from raydec.evaluation.predictions_file import PredictionsFile, is_predictions_file
from raydec.evaluation.result import (
    AttributeResult,
    Comparison,
    Evaluation,
    Group,
    GroupScore,
    ModelIdentity,
    SplitResult,
)
from raydec.evaluation.split_choice import choose_splits
from raydec.evaluation.statistics import (
    bootstrap_ccc,
    compare_ccc,
)
from raydec.features.store import FeatureStore
from raydec.inference.prediction import Predictions, Predictor, load, model_fingerprint
from raydec.learning.ccc import concordance
from raydec.learning.dependency import EmotionInformation, cluster_dependency, emotion_information
from raydec.learning.randomness import generator_for
from raydec.model.outputs import Outputs
from raydec.splits import joint_name

logger = logging.getLogger(__name__)

DURATION_EDGES_S = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 11.0)
"""Where bins of utterance duration begin. Below 1 s an utterance is repeated to fill a chunk, above 11 s its
eleven chunks leave gaps."""
_FEW_SPEAKERS = 10
_ROWS_PER_STEP = 64

Progress = Callable[[int, int], None]
"""Called with the number of finished predictions and the total."""


def evaluate(
    model: str | Path,
    store: str | Path,
    splits: Sequence[str] | None = None,
    *,
    against: str | Path | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model directory, or a table of predictions, on splits of a feature store.

    Args:
        model: a model directory, or a table as :class:`~raydec.evaluation.predictions_file.PredictionsFile`
            reads it.
        store: a feature store with the model's features.
        splits: names in any spelling; default: every split named ``test*`` that has labels, else
            ``validation``.
        against: another model directory or table, compared on the same utterances by a paired bootstrap.
        seed: the same seed gives the same numbers, regardless of the other splits.
        num_resamples: number of bootstrap samples, and of permutations.
        progress: called as predictions are made.

    Raises:
        UserError: a model or the store cannot be read or they do not fit each other, or a split is missing
            or has no labels for the model; the message names the splits that there are.
    """
    predictor = _load(model)
    front_end = predictor.trained.front_end if isinstance(predictor, Predictor) else None
    opened = FeatureStore.open(store, front_end)
    other = None if against is None else _load_comparable(against, predictor, opened)
    names = choose_splits(opened, predictor.outputs, splits)
    predictors = [predictor] if other is None else [predictor, other]
    total = len(predictors) * sum(len(predictor.outputs.labeled_rows(opened, name)) for name in names)
    steps = _Steps(progress, total)
    scored = (_score_split(opened, name, predictors, steps) for name in names)
    return Evaluation(
        model=_identity(model, predictor),
        against=None if against is None or other is None else _identity(against, other),
        store=str(store),
        corpus=opened.corpus_name,
        synthetic=opened.synthetic,
        seed=seed,
        num_resamples=num_resamples,
        splits=tuple(_split_result(opened, one, seed, num_resamples) for one in scored),
    )


class _Steps:
    """Counts predictions for a progress display."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def advance(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


Scorer = Predictor | PredictionsFile


def _load(path: str | Path) -> Scorer:
    return PredictionsFile(path) if is_predictions_file(path) else load(path)


def _load_comparable(path: str | Path, predictor: Scorer, store: FeatureStore) -> Scorer:
    other = _load(path)
    if not set(other.outputs.attributes) & set(predictor.outputs.attributes):
        raise UserError(
            f"--against {path}: it predicts {other.outputs.label}, the evaluated model "
            f"{predictor.outputs.label}; there is nothing to compare"
        )
    if isinstance(other, PredictionsFile):
        return other
    differences = store.front_end.differences(other.trained.front_end)
    if differences:
        raise UserError(
            f"--against {path}: {store.path} holds other features than that model's: {', '.join(differences)}"
        )
    return other


def _identity(path: str | Path, predictor: Scorer) -> ModelIdentity:
    if isinstance(predictor, PredictionsFile):
        return predictor.identity
    run = predictor.trained.extra.get("run")
    return ModelIdentity(
        str(path),
        model_fingerprint(path),
        run if isinstance(run, str) else None,
        predictor.attributes,
        predictor.outputs.classes,
    )


@dataclass(frozen=True, eq=False)
class _Scored:
    """A split's labeled utterances with the models' predictions; scores and labels by attribute."""

    split: str
    table: pa.Table
    labels: dict[str, Float64[np.ndarray, " utterance"]]
    outputs: Outputs
    everything: Float64[np.ndarray, "utterance output"]
    scores: dict[str, Float64[np.ndarray, " utterance"]]
    clusters: Int64[np.ndarray, " utterance"] | None
    other_scores: dict[str, Float64[np.ndarray, " utterance"]]
    resampler: str
    train_splits: tuple[str, ...]

    @property
    def speakers(self) -> list[str | None]:
        return self.table["speaker"].to_pylist()


def _score_split(store: FeatureStore, split: str, predictors: Sequence[Scorer], steps: _Steps) -> _Scored:
    first = predictors[0]
    rows = first.outputs.labeled_rows(store, split)
    table = store.utterances.take(rows)
    _warn_of_unknown_speakers(predictors, table, split)
    results = [_predict(predictor, store, rows, steps) for predictor in predictors]
    scores = [
        dict(zip(predictor.outputs.names, result.scores.T, strict=True))
        for predictor, result in zip(predictors, results, strict=True)
    ]
    labels = {name: table[name].to_numpy().astype(np.float64) for name in first.outputs.attributes}
    labels = {name: values for name, values in labels.items() if not np.isnan(values).all()}
    other_scores = {} if len(scores) < 2 else scores[1]
    return _Scored(
        split,
        table,
        labels,
        first.outputs,
        results[0].scores,
        scores[0],
        results[0].clusters,
        other_scores,
        first.trained.resampler if isinstance(first, Predictor) else "soxr",
        _train_splits(first),
    )


def _warn_of_unknown_speakers(predictors: Sequence[Scorer], table: pa.Table, split: str) -> None:
    unknown = table["speaker"].null_count
    by_speaker = any(
        isinstance(predictor, Predictor) and predictor.trained.chunks.speaker_normalization == "mean"
        for predictor in predictors
    )
    if unknown and by_speaker:
        logger.warning(
            "%s: the model normalises by speaker, and %s of %s utterances have no speaker; their scores are "
            "less accurate",
            split,
            unknown,
            table.num_rows,
        )


def _predict(
    predictor: Scorer, store: FeatureStore, rows: Int64[np.ndarray, " row"], steps: _Steps
) -> Predictions:
    parts = []
    for start in range(0, len(rows), _ROWS_PER_STEP):
        block = rows[start : start + _ROWS_PER_STEP]
        parts.append(predictor.predict_store(store, block))
        steps.advance(len(block))
    clusters = [part.clusters for part in parts if part.clusters is not None]
    return Predictions(
        np.concatenate([part.scores for part in parts]), np.concatenate(clusters) if clusters else None
    )


def _split_result(store: FeatureStore, scored: _Scored, seed: int, num_resamples: int) -> SplitResult:
    table, clusters = scored.table, scored.clusters
    attributes = {name: _attribute_result(scored, name, seed, num_resamples) for name in scored.labels}
    return SplitResult(
        split=scored.split,
        num_utterances=len(table),
        num_speakers=len(set(scored.speakers) - {None}),
        duration_s=float(pc.sum(table["duration_s"]).as_py()),
        attributes=attributes,
        classes=class_results(
            scored.outputs, scored.split, table, scored.everything, scored.speakers, seed, num_resamples
        ),
        clusters_used=None if clusters is None else len(np.unique(clusters)),
        emotion=_emotion(table, clusters),
        speakers=_by_speaker(scored),
        durations=_by_duration(scored),
        notes=_notes(store, scored),
    )


def _attribute_result(scored: _Scored, name: str, seed: int, num_resamples: int) -> AttributeResult:
    prediction, label, speakers = scored.scores[name], scored.labels[name], scored.speakers

    def rng(purpose: str) -> np.random.Generator:
        return generator_for(seed, purpose, scored.split, name)

    dependency = comparison = None
    if scored.clusters is not None:
        dependency = cluster_dependency(
            label, scored.clusters, rng("permutation"), speakers=speakers, num_permutations=num_resamples
        )
    if name in scored.other_scores:
        other = scored.other_scores[name]
        difference = compare_ccc(
            prediction, other, label, speakers, rng("comparison"), num_resamples=num_resamples
        )
        comparison = Comparison(concordance(other, label), difference)
    whole = _group_score(prediction, label)
    return AttributeResult(
        bootstrap_ccc(prediction, label, speakers, rng("bootstrap"), num_resamples=num_resamples),
        whole.mean_error,
        whole.rmse,
        dependency,
        comparison,
        rater_agreement(scored.table, name),
    )


def _emotion(table: pa.Table, clusters: Int64[np.ndarray, " utterance"] | None) -> EmotionInformation | None:
    if clusters is None or "emotion" not in table.column_names:
        return None
    information = emotion_information(table["emotion"].to_pylist(), clusters)
    return information if information.num_utterances else None


def _by_speaker(scored: _Scored) -> tuple[Group, ...]:
    speakers = np.array(scored.speakers, dtype=object)
    names: list[str | None] = [*sorted(set(speakers) - {None})]
    if None in scored.speakers:
        names.append(None)
    return tuple(_group(scored, name, speakers == name) for name in names)


def _by_duration(scored: _Scored) -> tuple[Group, ...]:
    durations = scored.table["duration_s"].to_numpy()
    ends = (*DURATION_EDGES_S[1:], None)
    groups = [
        _group(scored, (begin, end), (durations >= begin) & (durations < (np.inf if end is None else end)))
        for begin, end in zip(DURATION_EDGES_S, ends, strict=True)
    ]
    return tuple(group for group in groups if group.num_utterances)


def _group(
    scored: _Scored, key: str | tuple[float, float | None] | None, members: Bool[np.ndarray, " utterance"]
) -> Group:
    scores = {
        name: _group_score(scored.scores[name][members], label[members])
        for name, label in scored.labels.items()
        if not np.isnan(label[members]).all()
    }
    return Group(key, int(members.sum()), scores)


def _group_score(prediction: Float64[np.ndarray, " row"], label: Float64[np.ndarray, " row"]) -> GroupScore:
    """Scores over the labeled rows, of which there is at least one."""
    labeled = ~np.isnan(label)
    error = prediction[labeled] - label[labeled]
    count = len(error)
    ccc = concordance(prediction, label) if count > 1 else None
    return GroupScore(count, ccc, float(error.mean()), float(np.sqrt(np.mean(error**2))))


def _notes(store: FeatureStore, scored: _Scored) -> tuple[str, ...]:
    notes = []
    known = set(scored.speakers) - {None}
    if store.synthetic:
        notes.append("the corpus is synthetic: its scores do not carry over to human speech")
    if len(known) < 2:
        notes.append(
            "fewer than two speakers are known: utterances were resampled, so intervals are too narrow"
        )
    elif len(known) < _FEW_SPEAKERS:
        notes.append(f"{len(known)} speakers are few for an interval over speakers: take it as rough")
    if scored.resampler != "soxr":
        notes.append(
            f"the store's audio was resampled by soxr, where the model's own way is {scored.resampler}: for "
            f"recordings of other rates than {store.front_end.sample_rate} Hz its own scores differ slightly"
        )
    trained = store.utterances.take(store.rows(scored.train_splits))["speaker"]
    shared = known & set(trained.to_pylist())
    if shared and scored.split not in scored.train_splits:
        notes.append(
            f"{len(shared)} of {len(known)} speakers are in the store's {joint_name(scored.train_splits)} "
            "split too: scores are not speaker-independent"
        )
    return tuple(notes)


def _train_splits(predictor: Scorer) -> tuple[str, ...]:
    """The splits that a model was trained on; ``train`` if the model does not record them."""
    match predictor.trained.extra.get("splits") if isinstance(predictor, Predictor) else None:
        case {"train": [*names]}:
            return tuple(map(str, names))
    return ("train",)
