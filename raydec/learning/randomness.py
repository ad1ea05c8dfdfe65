"""Random generators named by what they are for.

Every random decision of a run draws from its own generator, made from the run's seed and a path such as
``("draw", epoch, stage)``. A resumed run, another number of workers or one decision more or less elsewhere
therefore never shifts the numbers that a decision sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

# Resampling is done in blocks of about this many numbers.
BLOCK_VALUES = 2**22


def generator_for(seed: int, *path: int | str) -> np.random.Generator:
    """A numpy generator that depends on the seed and the path alone.

    Args:
        seed: the run's seed.
        path: what the numbers are for; ``1`` and ``"1"`` are different.
    """
    return np.random.Generator(np.random.PCG64(_seed_sequence(seed, path)))


def torch_generator_for(seed: int, *path: int | str) -> torch.Generator:
    """A torch generator on the CPU, so that the numbers do not depend on the device that uses them.

    torch's Mersenne twister keeps 32 bits of its seed: two paths share a stream once in 2**32 pairs.
    """
    state = int(_seed_sequence(seed, path).generate_state(1, np.uint64)[0])
    return torch.Generator("cpu").manual_seed(state >> 1)


def integer_seed_for(seed: int, *path: int | str) -> int:
    """A seed of 31 bits for libraries that take nothing else."""
    return int(_seed_sequence(seed, path).generate_state(1, np.uint32)[0]) >> 1


def _seed_sequence(seed: int, path: tuple[int | str, ...]) -> np.random.SeedSequence:
    # Python's own hash() of strings changes from process to process; this one never does.
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=16).digest()
    return np.random.SeedSequence(int.from_bytes(digest, "little"))


def repeat_blocks(num_repeats: int, values_per_repeat: int) -> Iterator[int]:
    """Repetitions to do at a time, so that a block of them holds about 4 million numbers."""
    largest = max(1, BLOCK_VALUES // values_per_repeat)
    for start in range(0, num_repeats, largest):
        yield min(largest, num_repeats - start)
