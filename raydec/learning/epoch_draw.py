"""A worker's share of everything that a stage of an epoch draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int32, Int64

from raydec.learning.label_shards import LabelShards
from raydec.learning.sampling import BatchPlan
from raydec.learning.worker import Worker

# Positions per lookup; this limits the memory that a lookup needs in addition to its result.
_BLOCK = 2**18

Draw = Callable[[Int64[np.ndarray, "position"]], Int64[np.ndarray, "position"]]
Lookup = Callable[
    [Int64[np.ndarray, "position"]],
    tuple[Int64[np.ndarray, "position"], Int32[np.ndarray, "position chunk"] | None],
]
"""Rows at some positions, and the clusters of their chunks if there are any; all workers call it together."""


@dataclass(frozen=True)
class BatchDraw:
    """A worker's share of one global batch.

    Attributes:
        num_draws: draws of the whole batch.
        own: which of them are this worker's.
        rows: own draws: chunks or utterances.
        labels: clusters of a chunk, or of all chunks of an utterance; None without clusters.
    """

    num_draws: int
    own: slice
    rows: Int64[np.ndarray, "draw"]
    labels: Int32[np.ndarray, "draw chunk"] | None


class EpochDraw:
    """Own draws of all batches.

    Args:
        plan: of the batches.
        worker: whose share.
        lookup: what is drawn at a position.
    """

    def __init__(self, plan: BatchPlan, worker: Worker, lookup: Lookup) -> None:
        self._plan = plan
        self._worker = worker
        positions = plan.own_positions(worker.rank, worker.world_size)
        counts = worker.all_gather(torch.tensor([len(positions)]))
        # All workers look up the same number of blocks; the last ones may be empty.
        num_blocks = max(1, -(-int(counts.max()) // _BLOCK))
        self._rows = np.empty(len(positions), np.int64)
        self._labels: np.ndarray | None = None
        for number in range(num_blocks):
            span = slice(number * _BLOCK, (number + 1) * _BLOCK)
            rows, labels = lookup(positions[span])
            self._rows[span] = rows
            if labels is not None:
                if self._labels is None:
                    self._labels = np.empty((len(positions), labels.shape[1]), np.int32)
                self._labels[span] = labels

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._plan)

    def __iter__(self) -> Iterator[BatchDraw]:
        """Own draws, batch by batch."""
        first = 0
        for number in range(len(self._plan)):
            own = self._plan.own(number, self._worker.rank, self._worker.world_size)
            span = slice(first, first + own.stop - own.start)
            labels = None if self._labels is None else self._labels[span]
            yield BatchDraw(self._plan.batch_rows(number), own, self._rows[span], labels)
            first = span.stop


def lookup_chunks(draw: Draw, shards: LabelShards) -> Lookup:
    """Chunks by place, as in a balanced draw, with their clusters."""

    def lookup(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, labels = shards.at(draw(positions))
        return rows, labels[:, None]

    return lookup


def lookup_utterances_of_chunks(draw: Draw, shards: LabelShards, num_chunks: int) -> Lookup:
    """The utterances of chunks that are drawn by place, with the clusters of all their chunks."""

    def lookup(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        utterances = shards.at(draw(positions))[0] // num_chunks
        return utterances, shards.labels_of(utterances, num_chunks)

    return lookup


def lookup_rows(draw: Draw, shards: LabelShards | None, chunks_per_row: int) -> Lookup:
    """Rows as they are drawn: chunks, or utterances of ``chunks_per_row`` chunks."""

    def lookup(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        rows = draw(positions)
        return rows, None if shards is None else shards.labels_of(rows, chunks_per_row)

    return lookup
