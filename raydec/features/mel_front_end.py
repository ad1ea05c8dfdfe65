"""The mel front end: mel power of the waveform, for the convolutional trunk. Torch-free to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float32

from raydec.errors import UserError
from raydec.features.front_end import ChunkFormat, FrontEnd, Scale, register_front_end

if TYPE_CHECKING:
    from torch import Tensor

    from raydec.features.audio import Recording

NUM_CHUNKS, CHUNK_FRAMES = 11, 62
"""The published geometry: 62 frames are 0.992 s."""
MIN_CHUNK_FRAMES, MAX_CHUNK_FRAMES = 53, 80
"""Chunk lengths for which the convolutions were tested; 53 frames is the published minimum."""


@register_front_end
@dataclass(frozen=True)
class MelFrontEnd(FrontEnd):
    """Mel-spectrograms, stored as power; by default the published ones.

    Attributes:
        sample_rate: of the waveform, in Hz.
        n_fft: window and transform length in samples.
        hop_length: samples from one frame to the next.
        n_mels: number of mel bands.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band in Hz.
        peak_normalize: divide the waveform by its absolute maximum first.
        remove_dc: subtract the waveform's mean before that.
    """

    name: ClassVar[str] = "mel"
    trunk: ClassVar[str] = "raydec.model.mel_cnn:build"
    scales: ClassVar[tuple[Scale, ...]] = ("power", "log")

    sample_rate: int = 16_000
    n_fft: int = 512
    hop_length: int = 256
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float = 8_000.0
    peak_normalize: bool = True
    remove_dc: bool = False

    @property
    def width(self) -> int:
        """Mel bands."""
        return self.n_mels

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop_length / self.sample_rate

    def frames(self, waveform: Float32[np.ndarray, " sample"]) -> Float32[Tensor, "frame mel"]:
        """Mel power; see :func:`raydec.features.mel.mel_frames`."""
        from raydec.features.mel import mel_frames

        return mel_frames(waveform, self)

    def blocks(self, recording: Recording) -> Iterator[Float32[Tensor, "_ mel"]]:
        """See :func:`raydec.features.mel_stream.mel_blocks`."""
        from raydec.features.mel_stream import mel_blocks

        yield from mel_blocks(recording, self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MelFrontEnd:
        """The inverse of :meth:`to_dict`; ``remove_dc`` is off in older stores and models, which lack it."""
        return super().from_dict({"remove_dc": False, **values})

    @property
    def usual_format(self) -> ChunkFormat:
        """The published geometry, scale and clipping."""
        return ChunkFormat("power", 3.0, NUM_CHUNKS, CHUNK_FRAMES)

    def check_format(self, form: ChunkFormat) -> None:
        """See :meth:`FrontEnd.check_format`."""
        super().check_format(form)
        if not MIN_CHUNK_FRAMES <= form.chunk_frames <= MAX_CHUNK_FRAMES:
            raise UserError(
                f"features.chunk_frames={form.chunk_frames}: a chunk must have {MIN_CHUNK_FRAMES} to "
                f"{MAX_CHUNK_FRAMES} mel frames; {CHUNK_FRAMES} frames are 0.992 s"
            )

    def of_this_version(self) -> MelFrontEnd:
        """The published parameters, with or without removal of the DC offset."""
        return MelFrontEnd(remove_dc=self.remove_dc)

    def check(self) -> None:
        """See :meth:`FrontEnd.check`."""
        sane = (
            1_000 <= self.sample_rate <= 1_000_000
            and 16 <= self.n_fft <= 65_536
            and 1 <= self.hop_length <= self.n_fft
            and 1 <= self.n_mels <= self.n_fft
            and 0 <= self.f_min < self.f_max <= self.sample_rate / 2
        )
        if not sane:
            raise ValueError(f"features are out of range: {self.to_dict()}")
