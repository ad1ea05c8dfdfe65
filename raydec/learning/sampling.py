"""Draws of the rows of an epoch, and their order.

Draws are global: what is drawn at a position of the epoch depends on the seed and the sizes of the clusters,
not on the worker. A worker only draws the positions of its share.

Chunks are drawn by their *place*: their number in the order by cluster, then by chunk. The workers that hold
the labels look up which chunk it is; see :mod:`raydec.learning.label_shards`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int64

from raydec.learning.shuffle import WHOLE_SIZE, Shuffle, uniform_at
from raydec.learning.worker import share_of

# Smaller than WHOLE_SIZE, because one such permutation per cluster is in memory.
_WHOLE_CLUSTER = 2**12


def order_by(groups: Int[np.ndarray, "row"], num_groups: int) -> Int64[np.ndarray, "row"]:
    """Rows in the order by group, then by row."""
    # numpy uses radix sort for 16-bit integers, which takes linear time.
    return np.argsort(groups.astype(np.uint16) if num_groups <= 2**16 else groups, kind="stable")


class BalancedDraw:
    """Chunks drawn uniformly over the non-empty clusters, in random order.

    Each non-empty cluster gets ``num_draws // num_non_empty`` draws; the remainder goes, one draw each, to
    clusters chosen at random. A cluster with fewer chunks than its quota is drawn with replacement, any other
    without.

    Args:
        sizes: chunks of each cluster.
        num_draws: number of positions.
        rng: source of randomness; only the constructor uses it.
        whole_size: sets and draws up to this size are drawn at once; larger ones position by position.

    Raises:
        ValueError: there is no chunk to draw.
    """

    def __init__(
        self,
        sizes: Int64[np.ndarray, "cluster"],
        num_draws: int,
        rng: np.random.Generator,
        whole_size: int = WHOLE_SIZE,
    ) -> None:
        clusters = np.flatnonzero(sizes)
        if not len(clusters):
            raise ValueError("cannot draw from an empty set of chunks")
        self._sizes = sizes[clusters]
        self._starts = (np.cumsum(sizes) - sizes)[clusters]
        self._quotas = np.full(len(clusters), num_draws // len(clusters), dtype=np.int64)
        self._quotas[rng.choice(len(clusters), num_draws % len(clusters), replace=False)] += 1
        self._whole: np.ndarray | None = None
        if max(num_draws, int(sizes.sum())) <= whole_size:
            self._whole = self._draw_whole(rng)
            return
        self._order = Shuffle(num_draws, rng, whole_size)
        self._key = int(rng.integers(2**63))
        self._within = [
            Shuffle(size, rng, _WHOLE_CLUSTER) if quota <= size else None
            for size, quota in zip(self._sizes.tolist(), self._quotas.tolist(), strict=True)
        ]

    def __call__(self, positions: Int64[np.ndarray, "position"]) -> Int64[np.ndarray, "position"]:
        """The places of the chunks at some positions of the draw."""
        if self._whole is not None:
            return self._whole[positions]
        slots = self._order(positions)
        ends = np.cumsum(self._quotas)
        clusters = np.searchsorted(ends, slots, side="right")
        numbers = uniform_at(slots, self._sizes[clusters], self._key)
        by_cluster = order_by(clusters, len(ends))
        parts = np.split(by_cluster, np.searchsorted(clusters[by_cluster], np.arange(1, len(ends))))
        for cluster, (part, shuffle) in enumerate(zip(parts, self._within, strict=True)):
            if shuffle is not None:
                numbers[part] = shuffle(slots[part] - (ends[cluster] - self._quotas[cluster]))
        return self._starts[clusters] + numbers

    def _draw_whole(self, rng: np.random.Generator) -> Int64[np.ndarray, "draw"]:
        drawn = [
            start + rng.choice(size, quota, replace=bool(size < quota))
            for start, size, quota in zip(self._starts, self._sizes, self._quotas, strict=True)
        ]
        return rng.permutation(np.concatenate(drawn))


class EvenDraw:
    """Chunks drawn with replacement: uniformly a non-empty cluster, then uniformly one of its chunks.

    If utterances are drawn through their chunks, the weight of an utterance is the sum over its chunks of
    1 / size of the chunk's cluster.

    Args:
        sizes: chunks of each cluster.
        rng: source of randomness; only the constructor uses it.

    Raises:
        ValueError: there is no chunk to draw.
    """

    def __init__(self, sizes: Int64[np.ndarray, "cluster"], rng: np.random.Generator) -> None:
        clusters = np.flatnonzero(sizes)
        if not len(clusters):
            raise ValueError("cannot draw from an empty set of chunks")
        self._sizes = sizes[clusters]
        self._starts = (np.cumsum(sizes) - sizes)[clusters]
        self._keys = rng.integers(2**63, size=2).tolist()

    def __call__(self, positions: Int64[np.ndarray, "position"]) -> Int64[np.ndarray, "position"]:
        """The places of the chunks at some positions of the draw."""
        clusters = uniform_at(positions, len(self._sizes), self._keys[0])
        return self._starts[clusters] + uniform_at(positions, self._sizes[clusters], self._keys[1])


class PairedShuffle:
    """Every labeled row once; then, from position ``num_labeled``, as many unlabeled rows.

    Unlabeled rows are numbered after the labeled ones; each is drawn once before any is drawn again.

    Args:
        num_labeled: labeled rows.
        num_unlabeled: unlabeled rows, at least one.
        rng: source of randomness for the labeled ones; only the constructor uses it.
        pool: the same for the unlabeled ones.
    """

    def __init__(
        self, num_labeled: int, num_unlabeled: int, rng: np.random.Generator, pool: np.random.Generator
    ) -> None:
        self._num_labeled, self._num_unlabeled = num_labeled, num_unlabeled
        self._labeled = Shuffle(num_labeled, rng)
        self._rounds = [Shuffle(num_unlabeled, pool) for _ in range(-(-num_labeled // num_unlabeled))]

    def __call__(self, positions: Int64[np.ndarray, "position"]) -> Int64[np.ndarray, "position"]:
        """The rows at some positions."""
        rows = np.empty_like(positions)
        labeled = positions < self._num_labeled
        rows[labeled] = self._labeled(positions[labeled])
        rounds, within = np.divmod(positions - self._num_labeled, self._num_unlabeled)
        for number, shuffle in enumerate(self._rounds):
            mine = rounds == number
            rows[mine] = self._num_labeled + shuffle(within[mine])
        return rows


@dataclass(frozen=True)
class BatchPlan:
    """How the positions of a draw are cut into global batches, and these into the shares of workers.

    Attributes:
        num_draws: positions of the draw.
        batch_size: positions of a batch; the last one may have fewer.
        paired: every batch is followed by as many positions of a second draw, numbered from
            ``num_draws``.
    """

    num_draws: int
    batch_size: int
    paired: bool = False

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.num_draws // self.batch_size)

    def batch_rows(self, batch: int) -> int:
        """Rows of a global batch, those of the second draw included."""
        return self._sources(batch) * (2 if self.paired else 1)

    def own(self, batch: int, rank: int, world_size: int) -> slice:
        """A worker's share of the rows of a batch."""
        return share_of(self.batch_rows(batch), rank, world_size)

    def own_positions(self, rank: int, world_size: int) -> Int64[np.ndarray, "position"]:
        """The positions of a worker's share, batch after batch."""
        num_full = self.num_draws // self.batch_size
        firsts = self.batch_size * np.arange(num_full, dtype=np.int64)
        parts = [(firsts[:, None] + self._within(0, rank, world_size)).reshape(-1)] if num_full else []
        if num_full < len(self):
            parts.append(num_full * self.batch_size + self._within(num_full, rank, world_size))
        return np.concatenate(parts) if parts else firsts

    def _within(self, batch: int, rank: int, world_size: int) -> Int64[np.ndarray, "position"]:
        """Own positions of one batch, relative to its first."""
        share, num_own = self.own(batch, rank, world_size), self._sources(batch)
        rows = np.arange(share.start, share.stop, dtype=np.int64)
        return np.where(rows < num_own, rows, rows - num_own + self.num_draws)

    def _sources(self, batch: int) -> int:
        return min(self.batch_size, self.num_draws - batch * self.batch_size)
