"""Passes over a chunk set without gradients: embeddings for clustering, and predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raydec.features.chunk_set import ChunkSet
from raydec.learning.worker import Worker, gather_rows, share_of
from raydec.model.folding import folded
from raydec.model.network import Network, activated
from raydec.model.outputs import Outputs

# A GPU is faster with large blocks than a CPU; see Trunk.utterances_per_block.
UTTERANCES_PER_BLOCK_ON_GPU = 256


@torch.inference_mode()
def embed_share(
    network: Network, chunk_set: ChunkSet, worker: Worker, *, use_bf16: bool = False
) -> np.ndarray:
    """Embeddings of this worker's contiguous share of utterances, in chunk order.

    Computed in evaluation mode: no dropout, running batch-norm statistics.

    Returns:
        float32 ``[chunk of the share, dimension]``.
    """
    network = folded(network)
    share = share_of(chunk_set.num_utterances, worker.rank, worker.world_size)
    num_chunks = chunk_set.num_chunks
    embeddings = np.empty(((share.stop - share.start) * num_chunks, _width(network, chunk_set)), np.float32)
    for first, block in _blocks(network, chunk_set, share, worker.device):
        with torch.autocast(worker.device.type, torch.bfloat16, enabled=use_bf16):
            embedded = network.embed(block)
        embeddings[first * num_chunks :][: len(block)] = embedded.float().cpu().numpy()
    return embeddings


@dataclass(frozen=True)
class ChunkSetPredictions:
    """A network's predictions for every utterance of a set.

    Attributes:
        values: float64 ``[utterance, output]``, attributes in the scale of the labels, then probabilities
            of classes: the mean over an utterance's chunk predictions.
        embeddings: float32 ``[chunk, dimension]``, in order.
        clusters: int64 ``[chunk]``, predicted by the cluster head; None without a cluster head.
    """

    values: np.ndarray
    embeddings: np.ndarray
    clusters: np.ndarray | None


@torch.inference_mode()
def predict_utterances(
    network: Network, chunk_set: ChunkSet, worker: Worker, outputs: Outputs
) -> ChunkSetPredictions:
    """Predict a whole set; every worker predicts its share and gets the result for the whole set.

    Args:
        network: evaluated without dropout, with running batch-norm statistics.
        chunk_set: utterances to predict.
        worker: gathers the shares.
        outputs: meaning of the network's outputs.
    """
    network = folded(network)
    share = share_of(chunk_set.num_utterances, worker.rank, worker.world_size)
    num_own, num_chunks = share.stop - share.start, chunk_set.num_chunks
    values = np.zeros((num_own, len(outputs)))
    embeddings = np.zeros((num_own * num_chunks, _width(network, chunk_set)), np.float32)
    clusters = np.zeros(num_own * num_chunks, np.int64)
    for first, block in _blocks(network, chunk_set, share, worker.device):
        output = network(block)
        predicted = activated(output.emotion.double(), outputs)
        by_chunk = predicted.cpu().numpy().reshape(-1, num_chunks, len(outputs))
        values[first : first + len(by_chunk)] = by_chunk.mean(axis=1)
        embeddings[first * num_chunks :][: len(block)] = output.embedding.float().cpu().numpy()
        if output.cluster_logits is not None:
            clusters[first * num_chunks :][: len(block)] = output.cluster_logits.argmax(1).cpu().numpy()
    return ChunkSetPredictions(
        outputs.in_label_scale(gather_rows(worker, values, chunk_set.num_utterances)),
        gather_rows(worker, embeddings, len(chunk_set)),
        gather_rows(worker, clusters, len(chunk_set)) if network.has_cluster_head else None,
    )


def _width(network: Network, chunk_set: ChunkSet) -> int:
    """Values per embedding."""
    device = next(network.parameters()).device
    return network.embed(chunk_set.gather(np.arange(chunk_set.num_chunks), device)).shape[1]


def _blocks(
    network: Network, chunk_set: ChunkSet, share: slice, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Chunks of a few whole utterances, so that temporal layers get complete sequences."""
    size = UTTERANCES_PER_BLOCK_ON_GPU if device.type == "cuda" else network.encoder.utterances_per_block
    for first in range(share.start, share.stop, size):
        last = min(first + size, share.stop)
        rows = np.arange(first * chunk_set.num_chunks, last * chunk_set.num_chunks)
        yield first - share.start, chunk_set.gather(rows, device)
