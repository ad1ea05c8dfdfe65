"""The stages of an epoch: what is embedded, clustered and drawn from, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from raydec.config import Config
from raydec.features.chunk_set import ChunkSet
from raydec.learning.data import TrainingData


@dataclass(frozen=True)
class Stage:
    """One pass of an epoch over one set of chunks.

    Attributes:
        name: ``unlabeled``, ``labeled`` or ``pooled``.
        chunk_set: what is embedded, clustered and drawn from.
        supervised: whether the losses of the targets are used.
        num_labeled: labeled utterances, which come first, in a set that has unlabeled ones too; else None.
    """

    name: str
    chunk_set: ChunkSet
    supervised: bool
    num_labeled: int | None = None


def plan_stages(config: Config, data: TrainingData) -> tuple[Stage, ...]:
    """The stages of an epoch (SPEC "One epoch"; DESIGN 6.4).

    A regressor has no use for unlabeled speech, so it only has the labeled stage.
    """
    labeled = Stage("labeled", data.labeled, supervised=True)
    if data.unlabeled is None or config.model.kind == "regressor":
        return (labeled,)
    if config.schedule == "pooled":
        return (Stage("pooled", data.pooled, True, num_labeled=data.labeled.num_utterances),)
    return (Stage("unlabeled", data.unlabeled, supervised=False), labeled)


def draws_by_utterance(config: Config) -> bool:
    """Whether batches hold whole utterances: some networks need an utterance's chunks together."""
    return config.training.batches == "utterances" or config.model.needs_whole_utterances


def batch_draws(config: Config, chunk_set: ChunkSet) -> int:
    """Draws per global batch."""
    assert config.training.batch_utterances is not None, "fill_recipe fills it in"
    per_utterance = 1 if draws_by_utterance(config) else chunk_set.num_chunks
    return config.training.batch_utterances * per_utterance


def pairs_batches(config: Config, stage: Stage) -> bool:
    """Whether every batch of labeled utterances also gets as many unlabeled ones.

    If few utterances are labeled, a batch drawn evenly from both would have too few of them for a CCC.
    """
    return (
        stage.num_labeled is not None and draws_by_utterance(config) and config.training.draws == "shuffled"
    )


def count_steps(config: Config, stages: tuple[Stage, ...]) -> int:
    """Optimiser steps of one epoch."""
    return sum(-(-draws_per_epoch(config, each) // batch_draws(config, each.chunk_set)) for each in stages)


def draws_per_epoch(config: Config, stage: Stage) -> int:
    """Draws of an epoch; of labeled utterances alone where batches are paired."""
    if pairs_batches(config, stage):
        assert stage.num_labeled is not None
        return stage.num_labeled
    return stage.chunk_set.num_utterances if draws_by_utterance(config) else len(stage.chunk_set)
