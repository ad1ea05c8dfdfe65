"""The trunk of the waveform front end: a pretrained encoder, then the head for encoder features."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydec.config import ModelConfig
from raydec.features.encoder_front_end import CLIP
from raydec.features.front_end import ChunkFormat, FrontEnd
from raydec.features.waveform_front_end import WaveformFrontEnd
from raydec.model.encoder_head import EncoderHead
from raydec.model.noise import Noise
from raydec.model.speech_encoder import SpeechEncoder
from raydec.model.trunk import Trunk


class TunedTrunk(Trunk):
    """Computes the same as a store of encoder features with its head, but is differentiable as a whole.

    Args:
        speech: the encoder.
        head: its input is statistics of chunks.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, speech: SpeechEncoder, head: EncoderHead) -> None:
        super().__init__()
        self.speech = speech
        self.head = head
        self.register_buffer("mean", torch.zeros(head.frame_width))
        self.register_buffer("std", torch.ones(head.frame_width))

    @property
    def embedding_dim(self) -> int:
        """Width of the output."""
        return self.head.embedding_dim

    def layer_weights(self) -> Float[Tensor, " layer"]:
        """Weight of each layer; their sum is 1."""
        return self.head.layer_weights()

    def forward(
        self, chunks: Float[Tensor, "chunk frame width"], noise: Noise | None = None
    ) -> Float[Tensor, "chunk embedding"]:
        """See :meth:`Trunk.forward`."""
        standardized = ((self.statistics(chunks) - self.mean) / self.std).clamp(-CLIP, CLIP)
        return self.head(standardized.unsqueeze(1), noise)

    def statistics(self, chunks: Float[Tensor, "chunk frame width"]) -> Float[Tensor, "chunk statistic"]:
        """Mean and standard deviation over time of each chosen hidden state."""
        return self.speech(chunks.flatten(1)).flatten(1)

    def decoder(self, latent_dim: int) -> nn.Module:
        """See :meth:`Trunk.decoder`; never called, see :meth:`WaveformFrontEnd.check_model`."""
        raise TypeError("audio is not decoded from latent vectors")

    def tuned_parameters(self) -> list[nn.Parameter]:
        """See :meth:`Trunk.tuned_parameters`."""
        return list(self.speech.parameters())

    def read_pretrained(self) -> None:
        """See :meth:`Trunk.read_pretrained`."""
        self.speech.read_pretrained()

    def recompute_layers(self) -> None:
        """See :meth:`Trunk.recompute_layers`."""
        if self.tuned_parameters():
            self.speech.recompute_layers()

    def located(self, front_end: FrontEnd) -> None:
        """See :meth:`Trunk.located`."""
        if isinstance(front_end, WaveformFrontEnd) and self.speech.front_end.location is None:
            self.speech.front_end = front_end


def build(model: ModelConfig, front_end: FrontEnd, form: ChunkFormat) -> TunedTrunk:
    """Build the trunk of the waveform front end; see :class:`raydec.features.front_end.FrontEnd`."""
    front_end = cast(WaveformFrontEnd, front_end)
    head = EncoderHead(
        len(front_end.layers),
        front_end.hidden_size,
        model.embedding_dim,
        model.dropout,
        pooled=True,
        chunk_frames=1,
    )
    return TunedTrunk(SpeechEncoder(front_end, model.encoder_tuning, model.lora_rank), head)
