"""Small feature stores for tests, made from the synthetic demo corpus."""

from __future__ import annotations

from pathlib import Path

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


def make_store(folder: Path, *, num_train: int = 8, num_other: int = 4, num_unlabeled: int = 4) -> Path:
    """A prepared store of a few synthetic utterances under ``folder``."""
    corpus_dir = write_demo_corpus(
        folder / "corpus",
        num_train=num_train,
        num_validation=num_other,
        num_test=num_other,
        num_unlabeled=num_unlabeled,
    )
    corpus = read_corpus(corpus_dir, unlabeled=[corpus_dir / "Unlabeled"] if num_unlabeled else [])
    prepare_store(corpus, folder / "store", num_workers=0)
    return folder / "store"
