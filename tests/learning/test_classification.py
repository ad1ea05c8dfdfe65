"""Scores of classes against scikit-learn, and their intervals against a loop over drawn speakers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from raydec.learning.classification import average_recall, class_scores, macro_f1


def some_utterances(num_speakers: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, 90)
    probabilities = rng.dirichlet(np.ones(3), 90)
    probabilities[np.arange(90), labels] += 0.3 * (labels >= 0)
    return probabilities, labels, np.array([f"s{i}" for i in rng.integers(0, num_speakers, 90)])


def test_scores_equal_those_of_scikit_learn() -> None:
    probabilities, labels, speakers = some_utterances()
    found = class_scores(probabilities, labels, speakers, np.random.default_rng(1))
    true, predicted = labels[labels >= 0], probabilities.argmax(1)[labels >= 0]
    np.testing.assert_array_equal(found.confusion, confusion_matrix(true, predicted))
    assert found.f1.value == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found.uar.value == pytest.approx(balanced_accuracy_score(true, predicted))
    assert (found.unit, found.num_units, found.num_utterances) == ("speaker", 6, len(true))
    assert found.f1.low < found.f1.value < found.f1.high


def test_intervals_are_those_of_drawing_whole_speakers() -> None:
    probabilities, labels, speakers = some_utterances()
    found = class_scores(probabilities, labels, speakers, np.random.default_rng(1), num_resamples=3000)
    rng, values = np.random.default_rng(2), []
    for _ in range(3000):
        rows = np.concatenate([np.flatnonzero(speakers == s) for s in rng.choice(np.unique(speakers), 6)])
        rows = rows[labels[rows] >= 0]
        values.append(balanced_accuracy_score(labels[rows], probabilities[rows].argmax(1)))
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.uar.low == pytest.approx(low, abs=0.01)
    assert found.uar.high == pytest.approx(high, abs=0.01)


def test_a_class_without_an_utterance_counts_for_nothing() -> None:
    # Of class 2 there is none, though it was predicted once.
    confusion = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    assert average_recall(confusion) == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert macro_f1(confusion) == pytest.approx((6 / 7 + 4 / 6) / 2)
    assert macro_f1(np.zeros((3, 3))) == 0


def test_without_a_labeled_utterance_scores_are_zero() -> None:
    found = class_scores(np.ones((2, 3)), np.array([-1, -1]), ["a", "b"], np.random.default_rng(0))
    assert (found.f1.value, found.uar.value, found.num_utterances) == (0, 0, 0)
