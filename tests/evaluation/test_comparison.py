"""The paper's table against plain loops over its definition."""

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydec.evaluation.comparison import Cell, compare_cells, to_csv, to_latex, to_markdown
from raydec.learning.ccc import concordance

NUM_UTTERANCES, NUM_SPEAKERS = 60, 6
SPEAKERS = [f"s{number % NUM_SPEAKERS}" for number in range(NUM_UTTERANCES)]
TARGET = np.random.default_rng(0).normal(4, 1, NUM_UTTERANCES)


def write_predictions(path: Path, noise: float, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    order = rng.permutation(NUM_UTTERANCES)  # files may list utterances in any order
    predicted = TARGET + rng.normal(0, noise, NUM_UTTERANCES)
    table = pa.table(
        {
            "utterance_id": [f"u{number:03d}" for number in order],
            "speaker": [SPEAKERS[number] for number in order],
            "split": ["test"] * NUM_UTTERANCES,
            "arousal": TARGET[order],
            "arousal_predicted": predicted[order],
        }
    )
    other = table.slice(0, 5).set_column(2, "split", pa.array(["validation"] * 5))
    pq.write_table(pa.concat_tables([table, other]), path)
    return path


def predictions_of(path: Path) -> np.ndarray:
    table = pq.read_table(path).to_pylist()
    by_id = {row["utterance_id"]: row["arousal_predicted"] for row in table if row["split"] == "test"}
    return np.array([by_id[name] for name in sorted(by_id)])


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    def seeds(name: str, noise: float, count: int) -> list[Path]:
        return [
            write_predictions(tmp_path / f"{name}{n}.parquet", noise, 10 * n + len(name))
            for n in range(count)
        ]

    return [
        Cell(
            {"model.kind": "regressor", "data.attributes": ["arousal"], "data.unlabeled_utterances": 0},
            seeds("r", 2.0, 3),
        ),
        Cell({"model.kind": "vae", "data.attributes": ["arousal"]}, seeds("va", 1.0, 3)),
        Cell(
            {"clustering.num_clusters": 10, "data.attributes": ["arousal"]},
            seeds("dec", 0.3, 2),
            num_failed=1,
        ),
        Cell(
            {
                "clustering.num_clusters": 20,
                "data.attributes": ["arousal"],
                "data.labeled_utterances": None,
                "training.patience": None,
            },
            [],
            num_failed=3,
        ),
    ]


def test_means_intervals_and_differences_are_those_of_the_definition(cells: list[Cell]) -> None:
    rows = compare_cells(cells, "test", num_resamples=400)
    means = [
        np.mean([concordance(predictions_of(p), TARGET) for p in cell.predictions]) for cell in cells[:3]
    ]
    for row, mean in zip(rows, means, strict=False):
        assert row.estimate is not None
        assert row.estimate.ccc == pytest.approx(mean)
        assert row.estimate.low < mean < row.estimate.high
        assert (row.estimate.unit, row.estimate.num_units) == ("speaker", NUM_SPEAKERS)
    assert means[1] > means[0]
    assert rows[1].difference is None, "the best baseline is not compared with itself"
    assert rows[0].difference is not None and rows[2].difference is not None
    assert rows[2].difference.difference == pytest.approx(means[2] - means[1])
    assert rows[0].difference.difference == pytest.approx(means[0] - means[1])
    assert rows[2].difference.p_value < 0.05

    # The interval again, by an obvious loop over resampled speakers.
    rng = np.random.default_rng(3)
    chosen = [rng.integers(NUM_SPEAKERS, size=NUM_SPEAKERS) for _ in range(400)]
    scores = []
    for speakers in chosen:
        picks = np.concatenate(
            [np.flatnonzero(np.arange(NUM_UTTERANCES) % NUM_SPEAKERS == s) for s in speakers]
        )
        scores.append(
            np.mean([concordance(predictions_of(p)[picks], TARGET[picks]) for p in cells[0].predictions])
        )
    low, high = np.quantile(scores, [0.025, 0.975])
    first = rows[0].estimate
    assert first is not None
    assert first.low == pytest.approx(low, abs=0.03)
    assert first.high == pytest.approx(high, abs=0.03)


def test_a_failed_cell_keeps_its_row_in_every_format(cells: list[Cell]) -> None:
    rows = compare_cells(cells, "test", num_resamples=50)
    assert [row.num_failed for row in rows] == [0, 0, 1, 3]
    parsed = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert parsed[3]["CCC"] == "failed"
    assert parsed[2]["model"] == "deepemocluster, num_clusters=10"
    assert parsed[3]["model"] == "deepemocluster, num_clusters=20, labeled_utterances=all, patience=unset"
    assert parsed[0]["unlabeled"] == "0" and parsed[1]["unlabeled"] == "all"
    table, caption = to_markdown(rows).split("\n\n")
    assert table.count("\n| ") == 1 + 4
    assert "over the 6 speakers of the split" in caption and "p cannot be below 0.031" in caption
    assert r"num\_clusters=20" in to_latex(rows)
    assert to_latex(rows).count(r"\\") == 1 + 4


def test_latex_escapes_what_tex_reads_as_commands(cells: list[Cell]) -> None:
    row = compare_cells(
        [Cell({"data.attributes": ["arousal"], "model.init": r"a_b%c&d#e$f{g}h~i^j\k"}, [], 1)],
        "test",
        num_resamples=50,
    )
    expected = r"a\_b\%c\&d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
    assert expected in to_latex(row)
