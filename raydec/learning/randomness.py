"""Random generators, identified by their purpose.

Every random decision of a run has its own generator, made from the run's seed and a path such as
``("draw", epoch, stage)``. Therefore its random numbers do not depend on resuming, on the number of workers,
or on other random decisions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

# Resampling is done in blocks of about this many numbers.
BLOCK_VALUES = 2**22


def generator_for(seed: int, *path: int | str) -> np.random.Generator:
    """A numpy generator that depends only on the seed and the path.

    Args:
        seed: the run's seed.
        path: the purpose of the numbers; ``1`` and ``"1"`` are different.
    """
    return np.random.Generator(np.random.PCG64(_seed_sequence(seed, path)))


def torch_generator_for(seed: int, *path: int | str) -> torch.Generator:
    """A torch generator on the CPU, so that the numbers do not depend on the device that uses them.

    torch's Mersenne twister uses only 32 bits of its seed, so one in 2**32 pairs of paths shares a stream.
    """
    state = int(_seed_sequence(seed, path).generate_state(1, np.uint64)[0])
    return torch.Generator("cpu").manual_seed(state >> 1)


def integer_seed_for(seed: int, *path: int | str) -> int:
    """A seed of 31 bits, for libraries that do not accept generators."""
    return int(_seed_sequence(seed, path).generate_state(1, np.uint32)[0]) >> 1


def _seed_sequence(seed: int, path: tuple[int | str, ...]) -> np.random.SeedSequence:
    # Not Python's hash(), which for strings differs from process to process.
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=16).digest()
    return np.random.SeedSequence(int.from_bytes(digest, "little"))


def repeat_blocks(num_repeats: int, values_per_repeat: int) -> Iterator[int]:
    """Sizes of blocks of repetitions, so that a block holds about 4 million numbers."""
    largest = max(1, BLOCK_VALUES // values_per_repeat)
    for start in range(0, num_repeats, largest):
        yield min(largest, num_repeats - start)
