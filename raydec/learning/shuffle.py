"""Random permutations that can be evaluated anywhere in their range, without being held whole.

A worker that needs a thousandth of a permutation of a billion rows computes just that. Small permutations
are numpy's own: they are cheap, and a keyed permutation of a few values would not be a fair draw from all.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt32

# Up to this many values a permutation is numpy's, held whole: 8 MB and some milliseconds.
WHOLE_SIZE = 2**20
_ROUNDS = 6
# Positions are permuted in blocks that fit in a CPU's cache.
_BLOCK = 2**15


class Shuffle:
    """A random permutation of ``0 … size - 1``.

    A large one is a Feistel cipher on the smallest number of bits that holds ``size`` values, applied again
    to results that are too large.

    Args:
        size: number of values.
        rng: source of randomness; only the constructor uses it.
        whole_size: largest size that is held whole.
    """

    def __init__(self, size: int, rng: np.random.Generator, whole_size: int = WHOLE_SIZE) -> None:
        self._size = size
        self._whole: np.ndarray | None = None
        if size <= whole_size:
            self._whole = rng.permutation(np.arange(size, dtype=np.int64))
            return
        self._keys = rng.integers(2**32, size=_ROUNDS, dtype=np.uint32)
        num_bits = (size - 1).bit_length()
        self._low_bits = np.uint64(num_bits // 2)
        self._low_mask = np.uint32(2 ** (num_bits // 2) - 1)
        self._high_mask = np.uint32(2 ** (num_bits - num_bits // 2) - 1)

    def __call__(self, positions: Int64[np.ndarray, "position"]) -> Int64[np.ndarray, "position"]:
        """The values at some positions, each from 0 to ``size - 1``."""
        if self._whole is not None:
            return self._whole[positions]
        values = np.empty(len(positions), np.int64)
        for start in range(0, len(positions), _BLOCK):
            span = slice(start, start + _BLOCK)
            values[span] = self._encrypted(positions[span])
        return values

    def _encrypted(self, positions: Int64[np.ndarray, "position"]) -> Int64[np.ndarray, "position"]:
        values = self._once(positions)
        while len(outside := np.flatnonzero(values >= self._size)):
            values[outside] = self._once(values[outside])
        return values

    def _once(self, values: Int64[np.ndarray, "value"]) -> Int64[np.ndarray, "value"]:
        wide = values.view(np.uint64)
        low = wide.astype(np.uint32) & self._low_mask
        high = (wide >> self._low_bits).astype(np.uint32)
        for number, key in enumerate(self._keys):
            if number % 2:
                high ^= _mixed(low, key) & self._high_mask
            else:
                low ^= _mixed(high, key) & self._low_mask
        return ((high.astype(np.uint64) << self._low_bits) | low).view(np.int64)


def uniform_at(
    positions: Int64[np.ndarray, "position"], limits: Int64[np.ndarray, "position"] | int, key: int
) -> Int64[np.ndarray, "position"]:
    """Independent uniform integers, each a function of its position and the key.

    Args:
        positions: at least 0.
        limits: one past the largest result of each position, at most 2**53.
        key: 64 bits; another key gives other numbers.
    """
    # SplitMix64: a counter in steps of the golden ratio, and its finaliser.
    bits = np.uint64(key) + positions.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return ((bits >> np.uint64(11)) * 2.0**-53 * limits).astype(np.int64)


def _mixed(half: UInt32[np.ndarray, "value"], key: np.uint32) -> UInt32[np.ndarray, "value"]:
    """The finaliser of MurmurHash3 on a half and a key."""
    mixed = half + key
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed
