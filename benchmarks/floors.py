"""Limits of this device: the rate of its fastest plain convolution and of memory copies."""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

# 2 operations per multiply-add, SPEC "Network": input rows x columns of the seven convolutions, and the rest.
GFLOP_FORWARD = 0.293
GFLOP_TRAIN = 3 * GFLOP_FORWARD
# float32 values of the seven feature maps of one chunk.
MAP_VALUES = 62 * 128 * 32 * 2 + 31 * 64 * 64 + 16 * 32 * 64 + 8 * 16 * 128 + 4 * 8 * 128 + 2 * 4 * 128
# Each map is written once and read once forward; backward reads it, and its gradient is written and read.
BYTES_TRAIN, BYTES_FORWARD = 4 * MAP_VALUES * 5, 4 * MAP_VALUES * 2


@dataclass(frozen=True)
class Floors:
    """Measured limits of one device.

    Attributes:
        gflops: rate of the fastest convolution found.
        gbytes: rate of a plain copy, read and written bytes counted.
    """

    gflops: float
    gbytes: float

    def chunk_seconds(self, *, train: bool) -> float:
        """Lower bound of the time for one chunk: the larger of arithmetic time and memory traffic time."""
        work, traffic = (GFLOP_TRAIN, BYTES_TRAIN) if train else (GFLOP_FORWARD, BYTES_FORWARD)
        return max(work / self.gflops, traffic / 1e9 / self.gbytes)


def measure_floors(device: torch.device, dtype: torch.dtype = torch.float32, repeats: int = 7) -> Floors:
    """Try a few plain convolutions and a copy; the best of each counts."""
    rates = []
    for channels, rows, columns, batch in ((64, 32, 64, 16), (128, 16, 32, 32), (128, 32, 64, 8)):
        if device.type == "cuda":
            batch *= 32
        x = torch.randn(batch, channels, rows, columns, device=device, dtype=dtype)
        x = x.to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        weight = weight.to(memory_format=torch.channels_last)
        work = 2 * 9 * channels * channels * rows * columns * batch / 1e9
        with torch.no_grad():
            rates.append(work / _least(lambda x=x, w=weight: F.conv2d(x, w, padding=1), device, repeats))
    source = torch.ones(2**28 // 4 if device.type == "cpu" else 2**30, device=device)
    target = torch.empty_like(source)
    seconds = _least(lambda: target.copy_(source), device, repeats)
    return Floors(max(rates), 2 * source.numel() * 4 / 1e9 / seconds)


def _least(call, device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def touch(gib: float) -> None:
    """Use and free memory.

    On a virtual machine whose host reclaims idle memory, the first use of a page afterwards is several times
    slower than on a physical machine.
    """
    if gib:
        with mmap.mmap(-1, int(gib * 2**30)) as memory:
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1
