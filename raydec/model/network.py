"""The interface of all networks, and DeepEmoCluster."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydec.config import ModelConfig
from raydec.model.batch_norm import GlobalBatchNorm2d
from raydec.model.noise import Noise
from raydec.model.outputs import Outputs
from raydec.model.pooling import AttentivePooling, build_pooling
from raydec.model.speech_encoder import SpeechEncoder
from raydec.model.temporal import NoTemporal, QueryKeyValue, build_temporal
from raydec.model.trunk import Trunk

LINEAR_STD = 0.01


@dataclass(frozen=True)
class NetworkOutput:
    """The results of a forward pass, for each chunk.

    Attributes:
        emotion: attributes in the normalised label scale, then logits of classes; see
            :class:`raydec.model.outputs.Outputs`.
        embedding: the input of K-means.
        cluster_logits: scores of the clusters; None without a cluster head.
        reconstruction: the decoded chunks of an autoencoder.
        latent_mean: mean of a variational autoencoder's latent.
        latent_log_variance: logarithm of its variance.
        sequence: chunk vectors by utterance for the triplet loss; None without that loss.
    """

    emotion: Float[Tensor, "chunk output"]
    embedding: Float[Tensor, "chunk d"]
    cluster_logits: Float[Tensor, "chunk cluster"] | None = None
    reconstruction: Float[Tensor, "chunk frame width"] | None = None
    latent_mean: Float[Tensor, "chunk latent"] | None = None
    latent_log_variance: Float[Tensor, "chunk latent"] | None = None
    sequence: Float[Tensor, "utterance position e"] | None = None


class Head(nn.Module):
    """A branch: Linear, ReLU, Linear.

    Args:
        num_inputs: width of the input.
        num_hidden: width of the hidden layer.
        num_outputs: width of the top layer.
    """

    def __init__(self, num_inputs: int, num_hidden: int, num_outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_inputs, num_hidden)
        self.top = nn.Linear(num_hidden, num_outputs)

    def forward(
        self, x: Float[Tensor, "*batch d"]
    ) -> tuple[Float[Tensor, "*batch hidden"], Float[Tensor, "*batch output"]]:
        """The hidden layer before its ReLU, and the output."""
        hidden = self.hidden(x)
        return hidden, self.top(torch.relu(hidden))


class Network(nn.Module):
    """Base of all networks: chunks of normalised frames to a :class:`NetworkOutput`.

    A batch is whole utterances: row ``utterance * num_chunks + i`` is chunk i. Networks without a
    temporal layer and without attentive pooling take any rows.

    Attributes:
        has_cluster_head: whether pseudo-labels can be learned.
        encoder: the trunk, from chunks to the vectors that all branches share.
        temporal: the layer over the chunk sequence.
        pooling: combines an utterance's chunks into the emotion head's input; None: the head is applied to
            each chunk, and its mean output is the utterance's prediction.
        emotion_head: the branch that is trained with labels.
        num_chunks: chunks per utterance.
    """

    has_cluster_head: ClassVar[bool] = False
    encoder: Trunk
    temporal: nn.Module
    pooling: AttentivePooling | None
    emotion_head: Head
    num_chunks: int

    def forward(
        self, chunks: Float[Tensor, "chunk frame width"], noise: Noise | None = None
    ) -> NetworkOutput:
        """Run the network; dropout and sampling happen only with ``noise``."""
        raise NotImplementedError

    def embed(self, chunks: Float[Tensor, "chunk frame width"]) -> Float[Tensor, "chunk d"]:
        """The input of K-means. Deterministic in evaluation mode, which the caller sets."""
        raise NotImplementedError

    @property
    def embedding_dim(self) -> int:
        """Values per embedding."""
        raise NotImplementedError

    def drop_decoder(self) -> None:
        """Stop decoding, which predictions and embeddings do not need."""
        return

    @torch.no_grad()
    def initialize(
        self, generator: torch.Generator, scheme: Literal["published", "kaiming"] = "published"
    ) -> None:
        """Draw all weights from a CPU generator.

        Published: convolutions normal with variance 2 / (kernel area * output channels), linear layers
        normal with standard deviation 0.01. Kaiming: both normal with variance 2 / inputs, top layers
        with 1 / inputs (He et al. 2015, equation 10). In both, biases are 0, normalisation layers 1 and 0,
        and the GRU and the Transformer's query, key and value keep PyTorch's own initialisation.
        """
        for module in self.modules():
            _initialize_module(module, generator)
        if scheme == "kaiming":
            tops = {head.top for head in self.modules() if isinstance(head, Head)}
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, QueryKeyValue):
                    fan_in = module.weight[0].numel()
                    _fill_normal(module.weight, math.sqrt((1 if module in tops else 2) / fan_in), generator)

    def reset_cluster_head(self, num_clusters: int, generator: torch.Generator) -> None:
        """Replace the cluster head's top layer by a fresh one."""
        raise TypeError(f"{type(self).__name__} has no cluster head")

    def top_layer_parameters(self) -> list[nn.Parameter]:
        """Parameters of the cluster head's top layer; empty without a cluster head."""
        return []

    def tuned_parameters(self) -> list[nn.Parameter]:
        """Parameters of a pretrained encoder; :meth:`body_parameters` include them."""
        return self.encoder.tuned_parameters()

    def emotion_head_parameters(self) -> list[nn.Parameter]:
        """Parameters of the emotion branch: both layers, and the pooling before them."""
        pooling = [] if self.pooling is None else list(self.pooling.parameters())
        return [*pooling, *self.emotion_head.parameters()]

    def body_parameters(self) -> list[nn.Parameter]:
        """All parameters except those of the cluster head's top layer."""
        top = {id(parameter) for parameter in self.top_layer_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in top]

    def _over_time(self, x: Float[Tensor, "chunk d"], noise: Noise | None) -> Float[Tensor, "chunk d"]:
        if isinstance(self.temporal, NoTemporal):
            return x
        return self.temporal(self._by_utterance(x), noise).flatten(0, 1)

    def _emotion(self, features: Float[Tensor, "chunk d"]) -> Float[Tensor, "chunk output"]:
        """The emotion branch; with pooling, every chunk has the output of its utterance."""
        if self.pooling is None:
            return self.emotion_head(features)[1]
        output = self.emotion_head(self.pooling(self._by_utterance(features)))[1]
        return output.unsqueeze(1).expand(-1, self.num_chunks, -1).flatten(0, 1)

    def _by_utterance(self, x: Float[Tensor, "chunk d"]) -> Float[Tensor, "utterance position d"]:
        assert x.shape[0] % self.num_chunks == 0, (
            f"{x.shape[0]} chunks are not a multiple of the {self.num_chunks} chunks of an utterance"
        )
        return x.view(-1, self.num_chunks, x.shape[1])


class DeepEmoCluster(Network):
    """A trunk with a cluster branch and an emotion branch.

    Args:
        model: widths and temporal layer.
        trunk: from chunks to the vectors that both branches share.
        num_chunks: chunks per utterance.
        num_outputs: columns of the emotion branch.
        num_clusters: width of the cluster head.

    Raises:
        UserError: the temporal layer does not support the widths.
    """

    has_cluster_head: ClassVar[bool] = True

    def __init__(
        self,
        model: ModelConfig,
        trunk: Trunk,
        num_chunks: int,
        num_outputs: int,
        num_clusters: int,
    ) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        dim = model.embedding_dim
        self.gives_sequence = model.temporal == "triplet"
        self.encoder = trunk
        self.temporal = build_temporal(model.temporal, dim, num_chunks, model.temporal_dropout)
        self.cluster_head = Head(dim, dim, num_clusters)
        self.pooling, width = build_pooling(model.pooling, dim)
        self.emotion_head = Head(width, dim, num_outputs)

    def forward(
        self, chunks: Float[Tensor, "chunk frame width"], noise: Noise | None = None
    ) -> NetworkOutput:
        """Both branches for every chunk."""
        features = self._features(chunks, noise)
        embedding, logits = self.cluster_head(features)
        return NetworkOutput(
            emotion=self._emotion(features),
            embedding=embedding,
            cluster_logits=logits,
            sequence=self._by_utterance(features) if self.gives_sequence else None,
        )

    def embed(self, chunks: Float[Tensor, "chunk frame width"]) -> Float[Tensor, "chunk d"]:
        """The cluster branch's hidden layer before its ReLU."""
        return self.cluster_head.hidden(self._features(chunks, None))

    @property
    def embedding_dim(self) -> int:
        """Values per embedding."""
        return self.cluster_head.hidden.out_features

    def reset_cluster_head(self, num_clusters: int, generator: torch.Generator) -> None:
        """Replace the top layer by a fresh one: normal with standard deviation 0.01, zero bias.

        Args:
            num_clusters: the new width, which may differ from the old one.
            generator: a CPU generator.
        """
        old = self.cluster_head.top
        top = nn.utils.skip_init(
            nn.Linear, old.in_features, num_clusters, device=old.weight.device, dtype=old.weight.dtype
        )
        with torch.no_grad():
            _initialize_module(top, generator)
        self.cluster_head.top = top

    def top_layer_parameters(self) -> list[nn.Parameter]:
        """Weight and bias of the current top layer."""
        return list(self.cluster_head.top.parameters())

    def _features(self, chunks: Tensor, noise: Noise | None) -> Tensor:
        return self._over_time(self.encoder(chunks, noise), noise)


def activated(emotion: Float[Tensor, "*batch output"], outputs: Outputs) -> Float[Tensor, "*batch output"]:
    """Outputs in the form that is averaged over chunks: attributes unchanged, classes as probabilities."""
    if not outputs.classes:
        return emotion
    numbers = emotion[..., : len(outputs.attributes)]
    probabilities = [emotion[..., columns].softmax(dim=-1) for columns in outputs.groups.values()]
    return torch.cat([numbers, *probabilities], dim=-1)


def joined(
    emotions: Sequence[Float[Tensor, "chunk _"]], outputs: Sequence[Outputs]
) -> Float[Tensor, "chunk output"]:
    """Outputs of several networks for the same chunks: the attributes of all, then all probabilities."""
    active = [activated(*pair) for pair in zip(emotions, outputs, strict=True)]
    cuts = [len(own.attributes) for own in outputs]
    numbers = [values[:, :cut] for values, cut in zip(active, cuts, strict=True)]
    classes = [values[:, cut:] for values, cut in zip(active, cuts, strict=True)]
    return torch.cat([part for part in numbers + classes if part.shape[1]], dim=1)


def _initialize_module(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        area = math.prod(module.kernel_size)
        _fill_normal(module.weight, math.sqrt(2.0 / (area * module.out_channels)), generator)
        _zero(module.bias)
    elif isinstance(module, QueryKeyValue):
        bound = math.sqrt(6.0 / (module.in_features + module.out_features))
        _fill_uniform([module.weight], bound, generator)
        _zero(module.bias)
    elif isinstance(module, nn.Linear):
        _fill_normal(module.weight, LINEAR_STD, generator)
        _zero(module.bias)
    elif isinstance(module, GlobalBatchNorm2d | nn.LayerNorm):
        module.reset_parameters()
    elif isinstance(module, SpeechEncoder):
        module.initialize(generator)
    elif isinstance(module, nn.GRU):
        _fill_uniform(module.parameters(), 1.0 / math.sqrt(module.hidden_size), generator)


def _fill_normal(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    # Drawn on the CPU so that every device starts from the same weights.
    tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)


def _fill_uniform(tensors: Iterable[Tensor], bound: float, generator: torch.Generator) -> None:
    for tensor in tensors:
        tensor.copy_((torch.rand(tensor.shape, generator=generator) * 2.0 - 1.0) * bound)


def _zero(tensor: Tensor | None) -> None:
    if tensor is not None:
        tensor.zero_()
