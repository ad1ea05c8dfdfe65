"""The published network and losses as a plain PyTorch module, for loops that raydec is compared with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS, STRIDES = (32, 32, 64, 64, 128, 128, 128), (1, 1, 2, 2, 2, 2, 2)


class PlainNetwork(nn.Module):
    """Seven convolutions, ``cnn_out``, the cluster branch and the emotion branch.

    Args:
        num_clusters: width of the cluster head.
    """

    def __init__(self, num_clusters: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for after, stride in zip(CHANNELS, STRIDES, strict=True):
            layers += [
                nn.Conv2d(before, after, 3, stride, 1),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            before = after
        self.convolutions = nn.Sequential(*layers)
        self.cnn_out = nn.Sequential(nn.Linear(1024, 256), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.cluster_hidden, self.top = nn.Linear(256, 256), nn.Linear(256, num_clusters)
        self.emotion_hidden, self.emotion_top = nn.Linear(256, 256), nn.Linear(256, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=(2 / (9 * module.out_channels)) ** 0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def features(self, chunks: Tensor) -> Tensor:
        """``[chunk, 256]``, the input of both branches."""
        return self.cnn_out(self.convolutions(chunks.unsqueeze(1)).flatten(1))

    def embed(self, chunks: Tensor) -> Tensor:
        """The embeddings that are clustered."""
        return self.cluster_hidden(self.features(chunks))

    def emotion(self, chunks: Tensor) -> Tensor:
        """``[chunk]``."""
        return self.emotion_top(F.relu(self.emotion_hidden(self.features(chunks))))[:, 0]

    def forward(self, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Cluster logits and emotion of every chunk."""
        features = self.features(chunks)
        logits = self.top(F.relu(self.cluster_hidden(features)))
        return logits, self.emotion_top(F.relu(self.emotion_hidden(features)))[:, 0]

    def renew_top(self, num_clusters: int) -> None:
        """A fresh top layer."""
        self.top = nn.Linear(256, num_clusters).to(self.top.weight.device)
        nn.init.normal_(self.top.weight, std=0.01)
        nn.init.zeros_(self.top.bias)

    def body(self) -> list[nn.Parameter]:
        """All parameters except the top layer's."""
        top = {id(parameter) for parameter in self.top.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in top]


def ccc_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - CCC, with the published mix of population and sample moments."""
    covariance = ((prediction - prediction.mean()) * (target - target.mean())).mean()
    spread = prediction.var() + target.var() + (prediction.mean() - target.mean()) ** 2
    return 1 - 2 * covariance / spread


def utterance_ccc(by_chunk: Tensor, target: Tensor) -> float:
    """Exact CCC over utterances of the mean chunk prediction (population moments)."""
    prediction, target = by_chunk.double().view(len(target), -1).mean(1), target.double()
    covariance = ((prediction - prediction.mean()) * (target - target.mean())).mean()
    spread = prediction.var(correction=0) + target.var(correction=0)
    return float(2 * covariance / (spread + (prediction.mean() - target.mean()) ** 2))
