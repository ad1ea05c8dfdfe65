"""Agreement of annotators: the definition by pairs, a published example, and from corpus to report."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from report_support import make_tiny_run
from stores import write_ratings

from raydec.corpus.demo import write_demo_corpus
from raydec.corpus.readers import read_corpus
from raydec.errors import UserError
from raydec.evaluation.agreement import RaterAgreement, rater_agreement
from raydec.evaluation.output import write_evaluation
from raydec.evaluation.scoring import evaluate
from raydec.features.store import FeatureStore
from raydec.pages.analysis import analyse
from raydec.pages.run_report import report_html
from raydec.preparation import prepare_store

Lists = list[list[float] | None]
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units.
PUBLISHED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def table_of(lists: Lists, labels: list[float | None] | None = None) -> pa.Table:
    given = [1.0] * len(lists) if labels is None else labels
    return pa.table({"arousal": given, "arousal_ratings": pa.array(lists, pa.list_(pa.float32()))})


def alpha_by_pairs(lists: Lists) -> float:
    """One less the ratio of the mean squared differences of pairs within units and of all pairs."""
    units = [unit for unit in lists if unit is not None and len(unit) > 1]
    values = [value for unit in units for value in unit]
    within = sum(
        sum((a - b) ** 2 for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units
    )
    everything = sum((a - b) ** 2 for a, b in itertools.permutations(values, 2)) / (len(values) - 1)
    return 1 - within / everything


def ccc_by_loop(lists: Lists) -> float:
    pairs = [
        (unit[place], np.mean(unit[:place] + unit[place + 1 :]))
        for unit in lists
        if unit is not None and len(unit) > 1
        for place in range(len(unit))
    ]
    x, y = np.array(pairs).T
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def random_lists(seed: int, count: int = 40) -> Lists:
    """Up to six ratings of each utterance; some have one, none, or are not known."""
    rng = np.random.default_rng(seed)
    lists: Lists = [
        np.clip(np.round(rng.normal(rng.uniform(1, 7), 1.2, rng.integers(0, 7))), 1, 7).tolist()
        for _ in range(count)
    ]
    return [*lists, None, [4.0]]


def found(lists: Lists) -> RaterAgreement:
    agreement = rater_agreement(table_of(lists), "arousal")
    assert agreement is not None
    return agreement


@pytest.mark.parametrize("seed", range(5))
def test_agreement_equals_its_definition_by_pairs(seed: int) -> None:
    lists = random_lists(seed)
    agreement = found(lists)
    assert agreement.alpha == pytest.approx(alpha_by_pairs(lists), abs=1e-12)
    assert agreement.ccc == pytest.approx(ccc_by_loop(lists), abs=1e-12)
    several = [unit for unit in lists if unit is not None and len(unit) > 1]
    assert (agreement.num_utterances, agreement.num_ratings) == (len(several), sum(map(len, several)))


def test_alpha_of_the_published_example() -> None:
    rows = [line.split() for line in PUBLISHED.strip().splitlines()]
    units: Lists = [[float(cell) for cell in unit if cell != "."] for unit in zip(*rows, strict=True)]
    assert round(found(units).alpha or 0, 3) == 0.849


def test_utterances_without_two_ratings_or_a_label_do_not_count() -> None:
    lists = random_lists(7)
    extra: Lists = [[1.0, 7.0, 1.0], [7.0], [], None]
    labels = [1.0] * len(lists) + [None, 1.0, 1.0, 1.0]
    assert rater_agreement(table_of([*lists, *extra], labels), "arousal") == found(lists)
    assert rater_agreement(table_of([[3.0], [], None]), "arousal") is None
    assert rater_agreement(table_of([]), "arousal") is None
    assert rater_agreement(table_of(lists).select(["arousal"]), "arousal") is None


def test_full_agreement_is_one_and_constant_ratings_have_no_alpha() -> None:
    full = found([[1.0, 1.0], [4.0, 4.0, 4.0]])
    assert (full.ccc, full.alpha) == (pytest.approx(1), pytest.approx(1))
    assert found([[3.1, 3.1], [3.1, 3.1]]).alpha is None


def test_ratings_go_from_the_corpus_to_evaluate_and_the_report(tmp_path: Path) -> None:
    corpus_dir = write_demo_corpus(
        tmp_path / "corpus", num_train=6, num_validation=4, num_test=6, num_unlabeled=0
    )
    before = prepare_store(read_corpus(corpus_dir), tmp_path / "store", num_workers=0, quiet=True)
    run = make_tiny_run(tmp_path / "runs", before.path, overrides=["training.epochs=1"])
    plain = evaluate(run / "model", before.path, ["test"], num_resamples=100)
    write_evaluation(plain, tmp_path / "plain.json")
    assert all(result.raters is None for result in plain.splits[0].attributes.values())
    assert "raters' α" not in (tmp_path / "plain.md").read_text()

    rated = pd.DataFrame(write_ratings(corpus_dir))
    corpus = read_corpus(corpus_dir)
    again = prepare_store(corpus, before.path, num_workers=0, quiet=True)
    assert again.was_complete and any("--restart stores them" in notice for notice in again.notices)
    restarted = prepare_store(corpus, before.path, num_workers=0, quiet=True, restart=True)
    counts = {"utterances": 16, "ratings": len(rated), "annotators": 4}
    assert (before.ratings, restarted.ratings) == ({}, counts)
    store = FeatureStore.open(restarted.path)
    unchanged = prepare_store(corpus, store.path, num_workers=0, quiet=True)
    assert (unchanged.notices, unchanged.ratings) == (before.notices, counts)

    evaluation = evaluate(run / "model", store.path, ["test"], num_resamples=100)
    write_evaluation(evaluation, tmp_path / "scores.json")
    document = json.loads((tmp_path / "scores.json").read_text())["splits"]["test"]["attributes"]
    test = rated[
        rated["FileName"].isin(store.utterances.take(store.rows("test"))["utterance_id"].to_pylist())
    ]
    lists: Lists = [group.tolist() for _, group in test.groupby("FileName")["EmoDom"]]
    assert document["dominance"]["raters"]["alpha"] == pytest.approx(alpha_by_pairs(lists), abs=1e-6)
    assert document["dominance"]["raters"]["ccc"] == pytest.approx(ccc_by_loop(lists), abs=1e-6)
    assert document["dominance"]["ccc"] == plain.splits[0].attributes["dominance"].estimate.ccc
    shown = f"{document['dominance']['raters']['alpha']:.4f}"
    assert shown in (tmp_path / "scores.md").read_text()

    detailed = corpus_dir / "Labels" / "labels_detailed.csv"
    detailed.write_text(detailed.read_text().replace("WORKER0; Neutral; Neutral; A:", "WORKER0; ; ; A:1", 1))
    with pytest.raises(UserError, match="its annotators' ratings have changed"):
        prepare_store(read_corpus(corpus_dir), store.path, num_workers=0, quiet=True)

    analysis = analyse(run, store=store.path)
    page = report_html(analysis)
    assert f"{document['dominance']['raters']['alpha']:.3f}" in page and "one rater" in page
