"""Correct the spread of predictions for speech that was not used in training.

A network that is trained on few utterances by their CCC reproduces the spread of their labels, but its
predictions for new speech vary too little, which lowers the CCC. After training, the predictions for the
unlabeled utterances (without any: for the validation split) are scaled to the spread of the training labels.
The labels of these utterances are not used. The mean of the predictions does not change, because with few
speakers it depends more on the speakers than on the network. The correction is affine and becomes part of the
last layer.
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
"""The largest factor by which the spread is raised or lowered."""
FEWEST_UTTERANCES = 10
"""With fewer utterances, the spread cannot be estimated."""
MOST_UTTERANCES = 4_000
"""Of a larger set, this many evenly spaced utterances are predicted; more would not change the result."""


@torch.no_grad()
def calibrate(network: Network, chunk_set: ChunkSet, worker: Worker, outputs: Outputs) -> None:
    """Change the emotion head's last layer so that predictions have the spread of the training labels.

    Args:
        network: changed in place, identically on every worker.
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
