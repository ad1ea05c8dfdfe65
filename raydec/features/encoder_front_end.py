"""The front end of pretrained encoders: hidden states, or statistics of chunks. Torch-free to import."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64

from raydec.errors import UserError
from raydec.features.encoder_source import find_encoder
from raydec.features.front_end import ChunkFormat, Scale, register_front_end
from raydec.features.pretrained import HOP_S, MAX_CHUNKS, PretrainedFrontEnd, described

if TYPE_CHECKING:
    from torch import Tensor

NUM_CHUNKS, CHUNK_FRAMES = 11, 50
"""Chunks of a second, as many as published."""
CLIP = 10.0


@register_front_end
@dataclass(frozen=True)
class EncoderFrontEnd(PretrainedFrontEnd):
    """Hidden states of a frozen encoder.

    With ``pooled``, a stored frame is a chunk: for each layer the mean over its hidden states, then their
    population standard deviation. Otherwise, a stored frame is the hidden states at one time, layer by layer.

    Attributes, beside those of :class:`PretrainedFrontEnd`:
        feeding: ``true_length`` where recordings are encoded without padding.
        pooled: whether stored frames are statistics of chunks.
        num_chunks: chunks per utterance.
        chunk_frames: hidden states per chunk, 50 a second.
        sample_rate: of the waveform, in Hz.
    """

    name: ClassVar[str] = "encoder"
    trunk: ClassVar[str] = "raydec.model.encoder_head:build"
    scales: ClassVar[tuple[Scale, ...]] = ("plain",)
    cost: ClassVar[float] = 40.0

    feeding: Literal["true_length"] = "true_length"
    pooled: bool = True
    num_chunks: int = NUM_CHUNKS
    chunk_frames: int = CHUNK_FRAMES
    sample_rate: int = 16_000

    @property
    def width(self) -> int:
        """Values per stored frame."""
        return len(self.layers) * self.hidden_size * (2 if self.pooled else 1)

    def frames(self, waveform: Float32[np.ndarray, " sample"]) -> Float32[Tensor, "frame width"]:
        """Hidden states or chunk statistics; see :mod:`raydec.features.encoder_network`."""
        from raydec.features.encoder_network import chunk_statistics, load_encoder

        hidden = load_encoder(self).hidden_states(waveform)
        if not self.pooled:
            return hidden.permute(1, 0, 2).flatten(1)
        return chunk_statistics(hidden, self.num_chunks, self.chunk_frames)

    @property
    def usual_format(self) -> ChunkFormat:
        """The geometry that the store was made for."""
        return ChunkFormat("plain", CLIP, self.num_chunks, 1 if self.pooled else self.chunk_frames)

    def check_format(self, form: ChunkFormat) -> None:
        """See :meth:`FrontEnd.check_format`."""
        super().check_format(form)
        usual = self.usual_format
        for key in ("num_chunks", "chunk_frames") if self.pooled else ():
            if getattr(form, key) != getattr(usual, key):
                raise UserError(
                    f"features.{key}={getattr(form, key)}: the store has statistics of {self.num_chunks} "
                    f"chunks, one frame each; leave it unset, or prepare again with --frames"
                )
        if not 1 <= form.chunk_frames <= 500:
            raise UserError(
                f"features.chunk_frames={form.chunk_frames}: chunks have 1 to 500 hidden states, 50 a second"
            )

    def check(self) -> None:
        """See :meth:`FrontEnd.check`."""
        super().check()
        if not (2 <= self.num_chunks <= MAX_CHUNKS and 1 <= self.chunk_frames <= 500):
            raise ValueError(f"features are out of range: {self.to_dict()}")

    def chunk_seconds(
        self,
        form: ChunkFormat,
        places: Int64[np.ndarray, " chunk"],
        num_frames: Int64[np.ndarray, " chunk"],
        duration_s: Float[np.ndarray, " chunk"],
    ) -> tuple[Float[np.ndarray, " chunk"], Float[np.ndarray, " chunk"]]:
        """See :meth:`FrontEnd.chunk_seconds`; a stored chunk lies where it was cut from the hidden states."""
        if self.pooled:
            form = dataclasses.replace(form, chunk_frames=self.chunk_frames)
            num_frames = np.maximum(duration_s / HOP_S, 1).astype(np.int64)
        return super().chunk_seconds(form, places, num_frames, duration_s)


def encoder_front_end(name: str, layers: str = "last", **options: Any) -> EncoderFrontEnd:
    """The front end of a named encoder.

    Args:
        name: a folder, or ``hf:owner/name[@revision]``.
        layers: ``last``, ``all``, or numbers with commas; see :class:`EncoderFrontEnd`.
        options: other fields of :class:`EncoderFrontEnd`.

    Raises:
        UserError: see :func:`raydec.features.encoder_source.find_encoder`; or a layer that it does not have.
    """
    return EncoderFrontEnd(**described(find_encoder(name), layers), **options)
