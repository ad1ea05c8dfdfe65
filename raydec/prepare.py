"""``python -m raydec.prepare CORPUS_DIR STORE_DIR``: turn a corpus into a feature store, or verify one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from raydec.api import prepare
from raydec.console.prepare_command import parse_prepare, print_summary
from raydec.console.terminal import note, out, run_entry_point


def main(arguments: Sequence[str]) -> None:
    """Read the corpus, compute its features, and print what was skipped and why."""
    options = parse_prepare(arguments)
    if options.verify is not None:
        verify(options.verify)
        return
    summary = prepare(
        options.corpus_dir,
        options.store_dir,
        labels=options.labels,
        audio=options.audio,
        unlabeled=options.unlabeled,
        format=options.format,
        label_range=tuple(options.label_range),
        remove_dc=options.remove_dc,
        encoder=options.encoder,
        layers=options.layers,
        frames=options.frames,
        tune=options.tune,
        num_workers=options.workers,
        address=options.address,
        restart=options.restart,
        on_corpus=lambda corpus: note(f"{corpus.name}: {corpus.table.num_rows} utterances ({corpus.format})"),
    )
    print_summary(summary)


def verify(store_dir: Path) -> None:
    """Compare every file of a store with its checksum.

    Raises:
        UserError: there is no finished store, or a file is missing or damaged.
    """
    from raydec.features.store import FeatureStore

    store = FeatureStore.open(store_dir)
    store.verify()
    out.print(f"{store.path}: {len(store)} utterances, all checksums match", markup=False)


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
