"""The front end of pretrained encoders: hidden states, or statistics of chunks. Torch-free to import."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64

from raydec.errors import UserError
from raydec.features.encoder_source import EncoderSource, find_encoder
from raydec.features.front_end import ChunkFormat, FrontEnd, Scale, register_front_end

if TYPE_CHECKING:
    from torch import Tensor

HOP_S = 0.02
"""Every supported family gives 50 hidden states a second."""
NUM_CHUNKS, CHUNK_FRAMES = 11, 50
"""Chunks of a second, as many as published."""
CLIP = 10.0
MAX_CHUNKS = 1_000


@register_front_end
@dataclass(frozen=True)
class EncoderFrontEnd(FrontEnd):
    """Hidden states of a frozen encoder.

    With ``pooled``, a stored frame is a chunk: for each layer the mean over its hidden states, then their
    population standard deviation. Without, a stored frame is the hidden states of one place, layer by layer.

    Attributes:
        encoder: its name.
        revision: commit on the Hub; None for a folder.
        weights_sha256: checksum of its weights; an encoder with another is refused.
        family: its architecture.
        hidden_size: values per hidden state.
        layers: hidden states that are kept: 0 enters the first layer, i leaves layer i, the last one as the
            encoder gives it out, with its final normalisation if it has one.
        feeding: ``true_length`` where recordings are encoded without padding.
        pooled: whether stored frames are statistics of chunks.
        num_chunks: chunks per utterance.
        chunk_frames: hidden states per chunk, 50 a second.
        sample_rate: of the waveform, in Hz.
        location: folder of the encoder's files, or its name on the Hub; not part of what the store holds.
    """

    name: ClassVar[str] = "encoder"
    trunk: ClassVar[str] = "raydec.model.encoder_head:build"
    scales: ClassVar[tuple[Scale, ...]] = ("plain",)
    cost: ClassVar[float] = 40.0

    encoder: str
    revision: str | None
    weights_sha256: str
    family: Literal["hubert", "wav2vec2", "wavlm", "whisper"]
    hidden_size: int
    layers: tuple[int, ...]
    feeding: Literal["true_length"] = "true_length"
    pooled: bool = True
    num_chunks: int = NUM_CHUNKS
    chunk_frames: int = CHUNK_FRAMES
    sample_rate: int = 16_000
    location: str | None = field(default=None, compare=False)

    @property
    def width(self) -> int:
        """Values per stored frame."""
        return len(self.layers) * self.hidden_size * (2 if self.pooled else 1)

    @property
    def hop_s(self) -> float:
        """Seconds from one hidden state to the next."""
        return HOP_S

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
                    f"features.{key}={getattr(form, key)}: the store holds statistics of {self.num_chunks} "
                    f"chunks, one frame each; leave it unset, or prepare again with --frames"
                )
        if not 1 <= form.chunk_frames <= 500:
            raise UserError(
                f"features.chunk_frames={form.chunk_frames}: chunks have 1 to 500 hidden states, 50 a second"
            )

    def check(self) -> None:
        """See :meth:`FrontEnd.check`."""
        sane = (
            1 <= self.hidden_size <= 65_536
            and 1 <= len(self.layers) <= 1_000
            and all(0 <= layer <= 1_000 for layer in self.layers)
            and 2 <= self.num_chunks <= MAX_CHUNKS
            and 1 <= self.chunk_frames <= 500
            and self.sample_rate == 16_000
        )
        if not sane:
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

    def to_dict(self) -> dict[str, Any]:
        """The parameters as a JSON object; where the encoder is found is not one of them."""
        return {key: value for key, value in super().to_dict().items() if key != "location"}

    @classmethod
    def from_dict(cls, values: Any) -> EncoderFrontEnd:
        """The inverse of :meth:`to_dict`."""
        return super().from_dict({**values, "location": None})

    def differences(self, other: FrontEnd) -> list[str]:
        """See :meth:`FrontEnd.differences`; names and revisions may differ where the weights are the same."""
        found = super().differences(other)
        if not isinstance(other, EncoderFrontEnd) or other.weights_sha256 != self.weights_sha256:
            return found
        return [line for line in found if not line.startswith(("encoder ", "revision "))]

    def folder(self, location: str | Path | None = None) -> Path:
        """The folder of the encoder's files: the one named, the one found before, or fetched from the Hub.

        Raises:
            UserError: there is another encoder, or none, or its place is unknown.
        """
        place = location or self.location
        if place is None and self.revision is None:
            raise UserError(
                f"the features are those of encoder {self.encoder}, which was a local folder; "
                "say where it is with --encoder DIR"
            )
        found = self.located(str(place or f"{self.encoder}@{self.revision}")).location
        assert found is not None
        return Path(found)

    def located(self, location: str) -> EncoderFrontEnd:
        """The same front end, with the encoder's files at a place.

        Raises:
            UserError: there is another encoder, or none.
        """
        source = find_encoder(location)
        if source.weights_sha256 != self.weights_sha256:
            raise UserError(
                f"encoder {location} has weights of checksum {source.weights_sha256[:16]}; the features were "
                f"made with {self.encoder}, checksum {self.weights_sha256[:16]}; name that encoder"
            )
        return dataclasses.replace(self, location=str(source.folder))


def encoder_front_end(name: str, layers: str = "last", **options: Any) -> EncoderFrontEnd:
    """The front end of a named encoder.

    Args:
        name: a folder, or ``hf:owner/name[@revision]``.
        layers: ``last``, ``all``, or numbers with commas; see :class:`EncoderFrontEnd`.
        options: other fields of :class:`EncoderFrontEnd`.

    Raises:
        UserError: see :func:`raydec.features.encoder_source.find_encoder`; or a layer that it does not have.
    """
    source = find_encoder(name)
    return EncoderFrontEnd(
        encoder=source.name,
        revision=source.revision,
        weights_sha256=source.weights_sha256,
        family=source.family,  # type: ignore[arg-type]
        hidden_size=source.hidden_size,
        layers=_chosen_layers(layers, source),
        location=str(source.folder),
        **options,
    )


def _chosen_layers(layers: str, source: EncoderSource) -> tuple[int, ...]:
    last = source.num_layers
    if layers in ("last", "all"):
        return (last,) if layers == "last" else tuple(range(last + 1))
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in layers.split(",")]
    if not all(0 <= number <= last for number in numbers) or len(set(numbers)) != len(numbers):
        raise UserError(
            f"--layers {layers}: write last, all, or different numbers from 0 to {last} with commas; "
            f"{source.name} has {last} layers, and 0 is what enters the first"
        )
    return tuple(sorted(numbers))
