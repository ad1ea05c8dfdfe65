"""Keeps chunk sets in a GPU's memory during training, if they fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from raydec.features.chunk_set import ChunkSet

# The rest is for activations, which grow with the batch size, and for K-means.
SHARE_OF_FREE_MEMORY = 0.6

logger = logging.getLogger(__name__)


def hold_where_they_fit(
    sets: Sequence[ChunkSet],
    device: torch.device,
    free_bytes: Callable[[torch.device], int] | None = None,
) -> list[ChunkSet]:
    """Copy the frames of sets to the device, in order, as long as there is free memory.

    Sets that do not fit stay in the memory map and are copied chunk by chunk, as on a CPU. A worker may draw
    any chunk of a set, so every worker holds whole sets.

    Args:
        sets: in order of decreasing use.
        device: of the network; nothing is copied for a CPU.
        free_bytes: returns the free memory of a device; default: from CUDA.

    Returns:
        The sets that were copied.
    """
    if free_bytes is None:
        if device.type != "cuda":
            return []
        free_bytes = _free_on_gpu
    budget = int(SHARE_OF_FREE_MEMORY * free_bytes(device))
    held: list[ChunkSet] = []
    for chunk_set in sets:
        if chunk_set.num_bytes > budget:
            logger.info(
                "%.1f GiB of frames do not fit on %s and stay on disk", chunk_set.num_bytes / 2**30, device
            )
            continue
        try:
            chunk_set.hold_on(device)
        except torch.cuda.OutOfMemoryError:  # memory is fragmented, or another process took it
            logger.info("%s ran out of memory; frames stay on disk", device)
            torch.cuda.empty_cache()
            break
        budget -= chunk_set.num_bytes
        held.append(chunk_set)
    return held


def _free_on_gpu(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0]
