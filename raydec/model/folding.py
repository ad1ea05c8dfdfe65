"""Folds batch normalisation into the preceding convolutions, for passes without gradients."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from raydec.model.network import Network
from raydec.model.speech_encoder import SpeechEncoder


def folded(network: Network) -> Network:
    """A copy in evaluation mode that computes the same predictions and embeddings in less time.

    Batch normalisation with running statistics is affine, so the preceding convolution can absorb it. The
    decoder of an autoencoder is dropped.
    Outputs agree with the original network's to float32 rounding.
    """
    # Pretrained encoders are shared, not copied: they are large and have nothing to fold.
    shared = {id(module): module for module in network.modules() if isinstance(module, SpeechEncoder)}
    twin = copy.deepcopy(network, shared).eval()
    twin.drop_decoder()
    for module in list(twin.modules()):
        if isinstance(module, nn.Sequential):
            _fold_pairs(module)
    return twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _fold_pairs(layers: nn.Sequential) -> None:
    for index in range(len(layers) - 1):
        convolution, norm = layers[index], layers[index + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index] = fuse_conv_bn_eval(convolution, norm)
            layers[index + 1] = nn.Identity()
