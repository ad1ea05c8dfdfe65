"""Random numbers for a forward pass that do not depend on how the batch is split over workers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class Noise:
    """Draws for the rows ``[start, stop)`` of a global batch of ``num_rows`` rows.

    Every draw covers the whole global batch and returns this worker's rows, so a value depends on the
    position in the global batch and never on the rank. Each draw has its own generator, so a worker without
    rows, which skips work, stays in step with the others.

    Args:
        generator: a CPU generator in the same state on every worker; exactly one number is taken from it.
        num_rows: rows of the global batch, for example its utterances or its chunks.
        start: first row of this worker.
        stop: one past the last row of this worker.
    """

    def __init__(self, generator: torch.Generator, num_rows: int, start: int, stop: int) -> None:
        assert 0 <= start <= stop <= num_rows, f"rows [{start}, {stop}) are not within {num_rows}"
        assert generator.device.type == "cpu", "the generator must be on the CPU to be equal on every device"
        self._seed = int(torch.randint(2**62, (), generator=generator))
        self._num_draws = 0
        self._num_rows, self._start, self._stop = num_rows, start, stop

    def uniform(self, shape: Sequence[int], device: torch.device) -> Float[Tensor, "..."]:
        """Float32 numbers from [0, 1).

        Args:
            shape: shape of the result; ``shape[0]`` is a multiple of the number of this worker's rows.
            device: of the result; the draw itself is made on the CPU.
        """
        return self._draw(shape, device, normal=False)

    def normal(self, shape: Sequence[int], device: torch.device) -> Float[Tensor, "..."]:
        """Float32 standard normal numbers; arguments as for :meth:`uniform`."""
        return self._draw(shape, device, normal=True)

    def _draw(self, shape: Sequence[int], device: torch.device, *, normal: bool) -> Tensor:
        generator = self._next_generator()
        num_own = self._stop - self._start
        if num_own == 0:
            assert shape[0] == 0, f"{shape[0]} rows requested by a worker that holds none"
            return torch.empty(tuple(shape), device=device)
        repeats, rest = divmod(shape[0], num_own)
        assert rest == 0, f"{shape[0]} rows are not a multiple of this worker's {num_own}"
        draw = torch.randn if normal else torch.rand
        # A copy from pinned memory is asynchronous, so the CPU does not wait for the GPU.
        pinned = device.type == "cuda"
        everything = draw((repeats * self._num_rows, *shape[1:]), generator=generator, pin_memory=pinned)
        return everything[repeats * self._start : repeats * self._stop].to(device, non_blocking=pinned)

    def _next_generator(self) -> torch.Generator:
        state = np.random.SeedSequence((self._seed, self._num_draws)).generate_state(2, np.uint32)
        self._num_draws += 1
        return torch.Generator().manual_seed((int(state[0]) << 31) ^ int(state[1]))


def dropout(x: Float[Tensor, "..."], p: float, noise: Noise | None) -> Float[Tensor, "..."]:
    """Zero a share ``p`` of the values and scale the rest by 1/(1 - p); the identity when noise is None."""
    if noise is None or p == 0.0:
        return x
    keep = noise.uniform(x.shape, x.device) >= p
    return x * keep / (1.0 - p)
