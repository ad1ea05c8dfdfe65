"""Shared by benchmarks.diagnosis and benchmarks.pool: corpora, their folds, and runs trained once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import argument_parser
from raydec.config import Config, load_config
from raydec.experiment import resolve, train_run
from raydec.features.store import FeatureStore
from raydec.learning.clustering import KMeansResult
from raydec.pages.finished_run import FinishedRun, open_run

NUM_CLUSTERS = 10


@dataclass(frozen=True)
class Corpus:
    """A feature store, and how it is divided.

    Attributes:
        name: for tables and folders.
        store: the store's folder.
        folds: splits that take turns in testing; empty: the store's own splits.
        epochs: number of epochs of every run.
        seeds: one run each; the n-th tests on the n-th fold.
        work: folder of the runs.
    """

    name: str
    store: str
    folds: tuple[str, ...]
    epochs: int
    seeds: tuple[int, ...]
    work: Path

    def config(self, number: int, settings: dict[str, Any], name: str) -> Config:
        """The resolved settings of one run, with the seed of this number."""
        shared = {
            "data.store": self.store,
            "clustering.num_clusters": NUM_CLUSTERS,
            "training.epochs": self.epochs,
            "ray.num_workers": 0,
            "ray.cpus_per_worker": 1,
            "output_dir": str(self.work / self.name),
            "seed": self.seeds[number],
        }
        if self.folds:
            turned = self.folds[number:] + self.folds[:number]
            shared |= {
                "data.test_split": [turned[0]],
                "data.validation_split": turned[1],
                "data.train_split": list(turned[2:]),
            }
        slug = re.sub("[^a-z0-9.]+", "-", name.lower()).strip("-")
        own = {"name": f"{slug}-s{self.seeds[number]}"}
        return resolve(load_config(settings=[shared, settings, own]))

    def run(
        self,
        number: int,
        settings: dict[str, Any],
        name: str,
        fit: Callable[..., KMeansResult] | None = None,
    ) -> FinishedRun:
        """Train, unless the run is finished, and open it."""
        config = self.config(number, settings, name)
        train_run(config, fit)
        return open_run(self.work / self.name / str(config.name))


def laboratory_parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that both benchmarks take."""
    parser = argument_parser(doc)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("stores", nargs="+", metavar="NAME=STORE")
    parser.add_argument("--folds", default="", help="names of splits, for the stores that have them")
    parser.add_argument("--seeds", type=int, nargs="*", default=[31, 32, 33, 34, 35])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--dry", action="store_true", help="write no page")
    return parser


def corpora_of(options: argparse.Namespace) -> list[Corpus]:
    """The corpora of a command line."""
    corpora = []
    for text in options.stores:
        name, _, store = text.partition("=")
        there = set(FeatureStore.open(Path(store)).utterances["split"].to_pylist())
        folds = tuple(fold for fold in options.folds.split(",") if fold in there)
        seeds = tuple(options.seeds)
        corpora.append(Corpus(name, store, folds, options.epochs, seeds, options.work_dir.absolute()))
    return corpora


def command_of(module: str, corpora: list[Corpus], options: argparse.Namespace) -> str:
    """The command line, without paths of this machine."""
    stores = " ".join(f"{corpus.name}=STORE" for corpus in corpora)
    folds = f" --folds {options.folds}" if options.folds else ""
    seeds = " ".join(map(str, options.seeds))
    return f"python -m benchmarks.{module} WORK {stores} --seeds {seeds} --epochs {options.epochs}{folds}"


def test_split(run: FinishedRun) -> str:
    """The only test split of a run."""
    (split,) = [name for name in run.summary["ccc"] if name != run.validation_split]
    return split
