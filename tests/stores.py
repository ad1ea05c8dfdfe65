"""Small feature stores for tests, made from the synthetic demo corpus."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from raydec.corpus.demo import write_demo_corpus
from raydec.corpus.readers import read_corpus
from raydec.preparation import prepare_store

# Small enough for seconds per epoch; the published depth, so that batch norm is shared seven times a step.
SMALL_NETWORK = (
    "model.channels=[8,8,8,8,16,16,16]",
    "model.embedding_dim=32",
    "features.scale=log",
    "clustering.num_clusters=4",
    "training.batch_utterances=4",
)


def make_store(
    folder: Path, *, num_train: int = 8, num_other: int = 4, num_unlabeled: int = 4, rated: bool = False
) -> Path:
    """A prepared store of a few synthetic utterances under ``folder``, perhaps with annotators' ratings."""
    corpus_dir = write_demo_corpus(
        folder / "corpus",
        num_train=num_train,
        num_validation=num_other,
        num_test=num_other,
        num_unlabeled=num_unlabeled,
    )
    if rated:
        write_ratings(corpus_dir)
    corpus = read_corpus(corpus_dir, unlabeled=[corpus_dir / "Unlabeled"] if num_unlabeled else [])
    prepare_store(corpus, folder / "store", num_workers=0)
    return folder / "store"


def write_ratings(corpus_dir: Path) -> list[dict[str, str | float]]:
    """Write two to four annotators' ratings of every labeled utterance, the last by one of them only."""
    (consensus,) = (corpus_dir / "Labels").glob("labels_con*.csv")
    labels = list(csv.DictReader(consensus.read_text().splitlines()))
    rng = np.random.default_rng(0)
    rated: list[dict[str, str | float]] = []
    for number, label in enumerate(labels):
        for worker in range(1 if number == len(labels) - 1 else 2 + number % 3):
            noise = rng.normal(scale=0.3 + 0.4 * (number % 4), size=3)
            values = np.clip([float(label[f"Emo{name}"]) for name in ("Act", "Val", "Dom")] + noise, 1, 7)
            names = ("EmoAct", "EmoVal", "EmoDom")
            scores = dict(zip(names, values.round(3).tolist(), strict=True))
            rated.append({"FileName": label["FileName"], "worker": worker, **scores})
    lines = [
        f'{r["FileName"]},"WORKER{r["worker"]}; Neutral; Neutral; '
        f'A:{r["EmoAct"]:.3f}; V:{r["EmoVal"]:.3f}; D:{r["EmoDom"]:.3f};"'
        for r in rated
    ]
    (corpus_dir / "Labels" / "labels_detailed.csv").write_text("\n".join(["FileName,EmoDetail", *lines]))
    return rated
