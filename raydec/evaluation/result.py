"""The results of an evaluation, from the whole model down to one attribute of one speaker."""

from __future__ import annotations

from dataclasses import dataclass

from raydec.evaluation.agreement import RaterAgreement
from raydec.evaluation.statistics import (
    CccDifference,
    CccEstimate,
)
from raydec.learning.classification import ClassScores
from raydec.learning.dependency import Dependency, EmotionInformation


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of the evaluated model.

    Attributes:
        path: as it was given.
        sha256: of the files that determine its predictions.
        run: name of its training run, if recorded.
        attributes: the predicted attributes.
        classes: the predicted classes, by group.
    """

    path: str
    sha256: str
    run: str | None
    attributes: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Comparison:
    """Another model on the same utterances.

    Attributes:
        ccc: the other model's CCC.
        difference: the evaluated model minus the other model, with a paired test.
    """

    ccc: float
    difference: CccDifference


@dataclass(frozen=True)
class AttributeResult:
    """One attribute on one split.

    Attributes:
        estimate: CCC and its interval.
        mean_error: mean of prediction minus label.
        rmse: root mean square error.
        dependency: dependency of the label on the clusters; None for a model without clusters.
        comparison: with another model; None if there is none that predicts this attribute.
        raters: agreement of the annotators on these utterances; None if the store has no ratings.
    """

    estimate: CccEstimate
    mean_error: float
    rmse: float
    dependency: Dependency | None
    comparison: Comparison | None
    raters: RaterAgreement | None = None


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One group of classes on one split.

    Attributes:
        classes: in the order of the confusion matrix.
        scores: macro-F1, unweighted average recall and the confusion matrix.
    """

    classes: tuple[str, ...]
    scores: ClassScores


@dataclass(frozen=True)
class GroupScore:
    """One attribute on a group of utterances.

    Attributes:
        num_utterances: number of labeled utterances.
        ccc: None for fewer than two utterances, for which it is undefined.
        mean_error: mean of prediction minus label.
        rmse: root mean square error.
    """

    num_utterances: int
    ccc: float | None
    mean_error: float
    rmse: float


@dataclass(frozen=True)
class Group:
    """Utterances that share a speaker or a range of durations.

    Attributes:
        key: the speaker (None: unknown), or start and end of the range in seconds (None: no end).
        num_utterances: number of utterances in the group.
        scores: of each attribute with a label in the group.
    """

    key: str | tuple[float, float | None] | None
    num_utterances: int
    scores: dict[str, GroupScore]


@dataclass(frozen=True)
class SplitResult:
    """A model on one split.

    Attributes:
        split: its name.
        num_utterances: with a label for something that the model predicts; others are ignored.
        num_speakers: known speakers among them.
        duration_s: of all of them.
        attributes: results of each attribute that the model predicts and the split labels.
        classes: results of each group of classes that the model predicts and the split labels.
        clusters_used: number of clusters with an utterance; None for a model without clusters.
        emotion: mutual information of emotion class and cluster; None without clusters or classes.
        speakers: by name, with unknown speakers last.
        durations: ranges that have utterances, from short to long.
        notes: remarks on the interpretation, one sentence each.
    """

    split: str
    num_utterances: int
    num_speakers: int
    duration_s: float
    attributes: dict[str, AttributeResult]
    classes: dict[str, ClassResult]
    clusters_used: int | None
    emotion: EmotionInformation | None
    speakers: tuple[Group, ...]
    durations: tuple[Group, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """A model on splits of a store.

    Attributes:
        model: the evaluated model.
        against: the model with which it was compared, if any.
        store: path of the feature store, as it was given.
        corpus: name of the store's corpus.
        synthetic: whether the corpus is synthetic.
        seed: of resamples and permutations.
        num_resamples: number of bootstrap samples, and of permutations.
        splits: in the requested order.
    """

    model: ModelIdentity
    against: ModelIdentity | None
    store: str
    corpus: str
    synthetic: bool
    seed: int
    num_resamples: int
    splits: tuple[SplitResult, ...]
