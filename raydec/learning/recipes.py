"""The values that a recipe gives to unset keys of the config.

``reference`` is the published system. ``modern`` has been measured to do better on several corpora
(docs/recipes.md). Rules for values that depend on the size of the data are here, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from raydec.config import PUBLISHED_CHANNELS, Config

MODERN_CHANNELS = (16, 32, 48, 64)
MODERN_CHUNKS = 5
ENCODER_RATES = {"lora": 1e-4, "full": 1e-5}
"""Usual learning rates; not yet measured here."""
KEPT_EPOCH = "selection/kept_epoch"
"""Metric of runs that keep the last epoch's model instead of the best: the epoch whose model is kept."""


def fill_recipe(config: Config, num_labeled: int, scales: Collection[str]) -> Config:
    """The config with every key that its recipe decides filled in; keys that are set stay as they are.

    Filling in a second time changes nothing.

    Args:
        config: a run's settings.
        num_labeled: labeled training utterances.
        scales: on which the front end can normalise features.
    """
    decided = _modern(config, num_labeled) if config.training.recipe == "modern" else _reference(config)
    if "log" not in scales:
        decided["features"] = {}
    updates = {}
    for section, values in decided.items():
        current = getattr(config, section)
        unset = {key: value for key, value in values.items() if getattr(current, key) is None}
        updates[section] = current.model_copy(update=unset)
    return config.model_copy(update=updates)


def _reference(config: Config) -> dict[str, dict[str, Any]]:
    by_utterance = config.model.needs_whole_utterances
    return {
        "features": {"scale": "power"},
        "model": {
            "channels": PUBLISHED_CHANNELS,
            "frame_pooling": "flatten",
            "initialization": "published",
        },
        "training": {
            "batch_utterances": 64,
            "batches": "utterances" if by_utterance else "chunks",
            "random_offsets": False,
            "draws": "balanced",
            "calibration": "none",
            "selection": "best",
            "schedule": "two_stage",
        },
        "clustering": {"label_weight": 0.0},
        "loss": {"ccc_level": "chunk", "cluster_weight": 1.0},
    }


def _modern(config: Config, num_labeled: int) -> dict[str, dict[str, Any]]:
    few = num_labeled <= 2_000
    keeps_last = few and config.data.attributes and config.training.patience is None
    return {
        "features": {"scale": "log"},
        "model": {
            "channels": MODERN_CHANNELS,
            "frame_pooling": "statistics",
            "initialization": "kaiming",
        },
        "training": {
            "batch_utterances": 16 if few else 32 if num_labeled <= 10_000 else 64,
            "batches": "utterances",
            "chunks_per_utterance": None if config.model.needs_whole_utterances else MODERN_CHUNKS,
            "random_offsets": True,
            "draws": "shuffled",
            "calibration": "spread",
            # With few validation speakers, an early epoch may be best by luck; with many, it is a sign of
            # overfitting.
            "selection": "last" if keeps_last else "best",
            "schedule": "pooled",
            "encoder_learning_rate": ENCODER_RATES.get(config.model.encoder_tuning),
        },
        "clustering": {"label_weight": 1.0},
        "loss": {
            "ccc_level": "utterance",
            # At the start, the cross-entropy is ln K, and 1 - CCC about 1.
            "cluster_weight": 1.0 / math.log(config.clustering.num_clusters),
        },
    }
