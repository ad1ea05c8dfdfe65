"""The feature store of the built-in synthetic corpus, made on first use."""

from __future__ import annotations

from pathlib import Path

from raydec.console.terminal import note, waiting
from raydec.corpus.demo import DEMO_VERSION, write_demo_corpus
from raydec.corpus.readers import read_corpus
from raydec.files.locks import exclusive


def demo_store(output_dir: Path) -> Path:
    """Make the synthetic demo corpus and its feature store under ``output_dir``, unless they exist.

    Returns:
        The feature store's folder.
    """
    from raydec.preparation import prepare_store

    note(
        "data.store is not set: training on the synthetic demo corpus, whose scores say nothing about human "
        "speech"
    )
    base = output_dir / f"synthetic-demo-v{DEMO_VERSION}"
    base.mkdir(parents=True, exist_ok=True)
    with exclusive(base, lambda: note("another process is making the demo corpus; waiting for it to end")):
        with waiting("making the synthetic demo corpus"):
            corpus_dir = write_demo_corpus(base / "corpus")
        corpus = read_corpus(corpus_dir, unlabeled=[corpus_dir / "Unlabeled"])
        store = base / "store"
        with waiting("computing its features"):
            prepare_store(corpus, store, num_workers=0, synthetic=True, quiet=True)
        return store
