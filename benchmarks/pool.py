"""The benefit of unlabeled speech: ``python -m benchmarks.pool WORK_DIR NAME=STORE … --folds fold0,…,fold5``.

With few labels, the other training speech is left out (no pool), used without labels (pool), used with
shuffled speakers (placebo; only if features are normalised by speaker), or used with its labels (ceiling).
The test predictions of all folds are scored together; differences have intervals by a paired bootstrap over
speakers. Finished runs of an earlier call are kept.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.laboratory import Corpus, command_of, corpora_of, laboratory_parser, test_split
from benchmarks.report import machine, table, write_results
from raydec.config import Config
from raydec.evaluation.statistics import bootstrap_ccc, compare_ccc
from raydec.features.store import FeatureStore
from raydec.files.atomic import file_sha256, write_arrow
from raydec.learning.selection import open_store, select_rows
from raydec.pages.finished_run import FinishedRun

ATTRIBUTES = ("arousal", "dominance", "valence")
KINDS = ("regressor", "deepemocluster")
POOLS = ("no pool", "placebo", "pool", "ceiling")


def settings_of(kind: str, labels: int, pool: str, speakers: str) -> dict[str, Any]:
    """The settings of one way to train."""
    settings: dict[str, Any] = {"model.kind": kind, "features.speaker_normalization": speakers}
    if pool != "ceiling":
        settings["data.labeled_utterances"] = labels
    if pool in ("no pool", "ceiling"):
        settings["data.unlabeled_utterances"] = 0
    return settings


def shuffled_store(config: Config, folder: Path) -> Path:
    """The run's store, with the speakers of its unlabeled utterances shuffled."""
    if (folder / "store.json").exists():
        return folder
    store = open_store(config)
    pool = select_rows(config, store).unlabeled
    folder.mkdir(parents=True, exist_ok=True)
    for entry in store.path.iterdir():
        if entry.name.startswith("frames-"):
            os.link(entry, folder / entry.name)
    whole = FeatureStore.open(store.path).utterances
    speakers = np.array(whole["speaker"].to_pylist(), dtype=object)
    speakers[pool] = np.random.default_rng(config.seed).permutation(speakers[pool])
    place = whole.column_names.index("speaker")
    changed = whole.set_column(place, whole.schema.field(place), pa.array(speakers, pa.string()))
    write_arrow(folder / "utterances.arrow", changed.combine_chunks().to_batches()[0])
    content = json.loads((store.path / "store.json").read_text())
    content["utterances"]["sha256"] = file_sha256(folder / "utterances.arrow")
    (folder / "store.json").write_text(json.dumps(content))
    return folder


def predictions(run: FinishedRun) -> dict[str, np.ndarray]:
    """Test labels, predictions and speakers of a run, in the order of the store."""
    table = pq.read_table(run.folder / "predictions.parquet")
    table = table.filter(pa.compute.equal(table["split"], test_split(run))).sort_by("utterance_id")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def measured(corpus: Corpus, labels: int, speakers: str) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Pooled test predictions by kind and pool, from one run per fold, or without folds, one per seed."""
    found = {}
    for kind in KINDS:
        for pool in POOLS:
            if pool == "placebo" and speakers == "none":
                continue
            settings = settings_of(kind, labels, pool, speakers)
            name = f"{kind} {pool} {'all' if pool == 'ceiling' else labels} {speakers}"
            parts = []
            for number in range(len(corpus.folds) or len(corpus.seeds)):
                more = {}
                if pool == "placebo":
                    config = corpus.config(number, settings, name)
                    place = corpus.work / f"{corpus.name}-shuffled-{labels}-{number}"
                    more = {"data.store": str(shuffled_store(config, place))}
                parts.append(predictions(corpus.run(number, settings | more, name)))
            found[kind, pool] = _joined(parts, by_fold=bool(corpus.folds))
            print(corpus.name, name, flush=True)
    return found


def _joined(parts: list[dict[str, np.ndarray]], by_fold: bool) -> dict[str, np.ndarray]:
    """Folds one after the other; seeds as rows of the predictions."""
    if by_fold:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    joined = dict(parts[0])
    for name in ATTRIBUTES:
        joined[f"{name}_predicted"] = np.stack([part[f"{name}_predicted"] for part in parts])
    return joined


def rows_of(found: dict[tuple[str, str], dict[str, np.ndarray]]) -> list[list[str]]:
    """One row for each kind and pool: CCC, and the difference from the same kind without the pool."""
    rows = []
    for (kind, pool), scored in found.items():
        cells = []
        for name in ATTRIBUTES:
            rng = np.random.default_rng(0)
            predicted, target, speakers = scored[f"{name}_predicted"], scored[name], scored["speaker"]
            ccc = bootstrap_ccc(predicted, target, speakers, rng).ccc
            text = f"{ccc:.3f}"
            if pool != "no pool":
                without = found[kind, "no pool"][f"{name}_predicted"]
                change = compare_ccc(predicted, without, target, speakers, np.random.default_rng(0))
                marks = "**" if change.low > 0 or change.high < 0 else ""
                text += f", {marks}{change.difference:+.3f}{marks} ({change.low:+.3f} to {change.high:+.3f})"
            cells.append(text)
        rows.append([kind, pool, *cells])
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = laboratory_parser(__doc__)
    parser.add_argument("--labels", type=int, nargs="*", default=[50, 100])
    parser.add_argument("--speakers", nargs="*", default=["none", "mean"], choices=["none", "mean"])
    options = parser.parse_args()
    corpora = corpora_of(options)
    numbers, parts = {}, [f"`{command_of('pool', corpora, options)}`\n\n{machine()}."]
    for corpus in corpora:
        for speakers in options.speakers:
            for labels in options.labels:
                rows = rows_of(measured(corpus, labels, speakers))
                title = f"{corpus.name}, {labels} labels, features.speaker_normalization={speakers}"
                parts.append(f"## {title}\n\n{table(['', '', *ATTRIBUTES], rows)}")
                numbers[title] = rows
                print(parts[-1], flush=True)
    if not options.dry:
        write_results("pool", "# The benefit of unlabeled speech\n\n" + "\n\n".join(parts), numbers)


if __name__ == "__main__":
    main()
