"""Mend the spread of predictions on speech that was not trained on.

A network that learns few utterances by their CCC fits their spread exactly and predicts too little of it for
new speech, which the CCC punishes. After training, its predictions of attributes are given the spread of the
training labels: those for the unlabeled utterances, or for the validation split where there are none. Labels
of these utterances play no part. The mean of the predictions stays: with few speakers it says more about the
speakers than about the network. The correction is affine and becomes part of the last layer.
"""

from __future__ import annotations

import numpy as np
import torch

from raydec.features.chunk_set import ChunkSet
from raydec.learning.inference import predict_utterances
from raydec.learning.worker import Worker
from raydec.model.network import Network
from raydec.model.outputs import Outputs

LARGEST_FACTOR = 2.0
"""The spread is changed by no more than this, in either direction."""
FEWEST_UTTERANCES = 10
"""Fewer say nothing about a spread."""
MOST_UTTERANCES = 4_000
"""More would not change it; of a larger set, so many at even distances are predicted."""


@torch.no_grad()
def calibrate(network: Network, chunk_set: ChunkSet, worker: Worker, outputs: Outputs) -> None:
    """Change the emotion head's last layer such that its predictions have the spread of the training labels.

    Args:
        network: changed in place, on every worker alike.
        chunk_set: utterances that were not trained on.
        worker: the collective.
        outputs: what the network predicts; classes stay as they are.
    """
    if chunk_set.num_utterances < FEWEST_UTTERANCES:
        return
    some = chunk_set.spread_out(MOST_UTTERANCES)
    values = predict_utterances(network, some, worker, outputs).values
    top = network.emotion_head.top
    for column in range(len(outputs.attributes)):
        normalised = (values[:, column] - outputs.mean[column]) / outputs.std[column]
        spread, mean = float(np.std(normalised)), float(np.mean(normalised))
        factor = float(np.clip(1 / max(spread, 1e-12), 1 / LARGEST_FACTOR, LARGEST_FACTOR))
        top.weight[column] *= factor
        top.bias[column] = (top.bias[column] - mean) * factor + mean
