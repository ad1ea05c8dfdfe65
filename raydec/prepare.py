"""``python -m raydec.prepare CORPUS_DIR STORE_DIR``: turn a corpus into a feature store."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raydec.api import prepare
from raydec.console.prepare_command import parse_prepare, print_summary
from raydec.console.terminal import note, run_entry_point


def main(arguments: Sequence[str]) -> None:
    """Read the corpus, compute its features, and print what was skipped and why."""
    options = parse_prepare(arguments)
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
        num_workers=options.workers,
        address=options.address,
        restart=options.restart,
        on_corpus=lambda corpus: note(f"{corpus.name}: {corpus.table.num_rows} utterances ({corpus.format})"),
    )
    print_summary(summary)


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
