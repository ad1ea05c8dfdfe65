"""A large matrix of embeddings, processed in blocks of rows on a GPU or by several threads."""

from __future__ import annotations

import functools
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

# Values per block: on a CPU, a block fits in the cache; on a GPU, it is large enough for full use but small
# compared with the data.
CPU_BLOCK_VALUES = 2**19
GPU_BLOCK_VALUES = 2**25

Result = TypeVar("Result")


@dataclass(frozen=True)
class RowBlocks:
    """Embeddings that are read in blocks of rows.

    Attributes:
        data: [row, dim] float32, on the device if it fits, else on the host.
        device: of the blocks.
    """

    data: Float32[Tensor, "row dim"]
    device: torch.device

    @classmethod
    def of(cls, embeddings: Float32[np.ndarray, "row dim"], device: torch.device) -> RowBlocks:
        """Wrap an array without copying it, or move it to a GPU if it fits."""
        with warnings.catch_warnings():
            # torch warns of read-only arrays, such as those from Ray's object store; nothing is written here.
            warnings.simplefilter("ignore", UserWarning)
            data = torch.from_numpy(np.ascontiguousarray(embeddings))
        if device.type == "cuda":
            torch.cuda.empty_cache()
            if 1.25 * embeddings.nbytes < torch.cuda.mem_get_info(device)[0]:
                data = data.to(device)
        return cls(data, device)

    @property
    def resident(self) -> bool:
        """Whether all rows are on the device."""
        return self.data.device.type == self.device.type

    def __len__(self) -> int:
        return len(self.data)

    def blocks(self, num_clusters: int) -> Iterator[tuple[Float32[Tensor, "block dim"], slice]]:
        """Blocks of rows and their slices, in order; their size also limits scores for ``num_clusters``."""
        block_rows = self._block_rows(num_clusters)
        for start in range(0, len(self.data), block_rows):
            span = slice(start, start + block_rows)
            yield self.data[span].to(self.device), span

    def map(
        self, function: Callable[[Float32[Tensor, "block dim"], slice], Result], num_clusters: int = 1
    ) -> Iterator[Result]:
        """Apply a function to every block and its slice; results are in row order.

        On a CPU each thread works on its own block, so the result does not depend on the number of threads.
        Such threads also stay fast on a busy machine, where torch's own threads would wait for each other
        inside every operation.
        """
        num_threads = torch.get_num_threads()
        if self.device.type != "cpu" or num_threads == 1:
            yield from (function(*block) for block in self.blocks(num_clusters))
            return
        pending: deque[Future[Result]] = deque()
        try:
            with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for block in self.blocks(num_clusters):
                    pending.append(pool.submit(function, *block))
                    if len(pending) > 4 * num_threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
        finally:
            # The setting is per thread, but setting it also changes the default for new threads.
            torch.set_num_threads(num_threads)

    @functools.cached_property
    def origin(self) -> Float64[Tensor, "dim"]:
        """A point among the rows (the mean of the first rows), from which distances are measured."""
        return self.data[:4096].to(self.device).double().mean(0)

    def rows(self, indices: Int64[np.ndarray, "pick"]) -> Float32[Tensor, "pick dim"]:
        """Copies of some rows, on the device."""
        return self.data[torch.from_numpy(indices).to(self.data.device)].to(self.device)

    @functools.cached_property
    def moments(self) -> tuple[Float64[Tensor, "dim"], Float64[Tensor, ""]]:
        """Sum of the rows, and sum of their squared norms; not finite if any value is not."""

        def of_block(block: Tensor, _: slice) -> tuple[Tensor, Tensor]:
            wide = block.double()
            return wide.sum(0), wide.square().sum()

        # Results are copied, not kept: small tensors that outlive the large ones of their block would leave
        # holes in the heap that the next block does not fit in, four times the embeddings in all.
        num_blocks = -(-len(self) // self._block_rows(1))
        totals = torch.empty(num_blocks, self.data.shape[1], dtype=torch.float64, device=self.device)
        squares = torch.empty(num_blocks, dtype=torch.float64, device=self.device)
        for number, (total, square) in enumerate(self.map(of_block)):
            totals[number], squares[number] = total, square
        return totals.sum(0), squares.sum()

    def _block_rows(self, num_clusters: int) -> int:
        values = CPU_BLOCK_VALUES if self.device.type == "cpu" else GPU_BLOCK_VALUES
        return max(1, values // max(self.data.shape[1], num_clusters))
