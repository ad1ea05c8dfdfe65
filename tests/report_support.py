"""A tiny trained run to make reports of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stores import make_store

from raydec.config import load_config
from raydec.experiment import resolve, train_run

TINY = (
    "model.channels=[4,4,4,4,4,4,4]",
    "model.embedding_dim=8",
    "model.latent_dim=8",
    "features.scale=log",
    "training.epochs=3",
    "training.batch_utterances=4",
    "training.recipe=modern",
    "training.selection=best",
    "training.precision=fp32",
    "clustering.num_clusters=3",
    "ray.num_workers=0",
    "ray.use_gpu=false",
)


def make_tiny_run(folder: Path, store: Path, name: str = "tiny", overrides: Sequence[str] = ()) -> Path:
    """The directory of a finished run of a few seconds."""
    places = (f"name={name}", f"output_dir={folder}", f"data.store={store}")
    return train_run(resolve(load_config(None, [*places, *TINY, *overrides]))).folder


def make_tiny_store(folder: Path) -> Path:
    """A store with 12 utterances in each of train, validation and test."""
    return make_store(folder, num_train=12, num_other=12, num_unlabeled=4)
