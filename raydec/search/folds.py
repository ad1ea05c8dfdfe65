"""Assigns the folds of a cross-validation to training, validation and test in each run."""

from __future__ import annotations

from collections.abc import Sequence

from raydec.config import Config, FoldsConfig


def with_fold(config: Config, folds: FoldsConfig, names: Sequence[str], fold: str) -> Config:
    """The config of the run that tests one fold; the next fold chooses the epoch, the others train."""
    chooser = names[(list(names).index(fold) + 1) % len(names)]
    data = config.data.model_copy(
        update={
            "folds": folds,
            "train_split": tuple(name for name in names if name not in (fold, chooser)),
            "validation_split": (chooser,),
            "test_split": (fold,),
        }
    )
    return config.model_copy(update={"data": data})
