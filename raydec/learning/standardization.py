"""The standardisation inside a trunk that encodes audio, fitted before training begins."""

from __future__ import annotations

import numpy as np
import torch

from raydec.features.chunk_set import ChunkSet
from raydec.learning.worker import Worker, share_of
from raydec.model.tuned_trunk import TunedTrunk

MAX_UTTERANCES = 1_000
"""Enough for a mean and a standard deviation; limits the cost for a large corpus."""


@torch.inference_mode()
def standardize(trunk: TunedTrunk, labeled: ChunkSet, worker: Worker) -> None:
    """Set mean and standard deviation of the encoder's statistics to those of training chunks.

    Args:
        trunk: changed in place, with the encoder as it is now.
        labeled: labeled training utterances; of many, :data:`MAX_UTTERANCES` at even distances are used.
        worker: encodes its share.
    """
    chosen = labeled.spread_out(MAX_UTTERANCES)
    share = share_of(chosen.num_utterances, worker.rank, worker.world_size)
    sums = torch.zeros(2, len(trunk.mean), dtype=torch.float64, device=worker.device)
    for utterance in range(share.start, share.stop):
        rows = np.arange(utterance * chosen.num_chunks, (utterance + 1) * chosen.num_chunks)
        found = trunk.statistics(chosen.gather(rows, worker.device)).double()
        sums += torch.stack([found.sum(dim=0), found.square().sum(dim=0)])
    mean, square = worker.all_sum(sums) / len(chosen)
    std = (square - mean.square()).clamp(min=0).sqrt()
    trunk.mean.copy_(mean)
    # A value that never varies becomes 0.
    trunk.std.copy_(torch.where(std > 0, std, 1.0))
