"""The front end for tuning a pretrained encoder: audio, which the network encodes. Torch-free to import."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float32

from raydec.config import ModelConfig
from raydec.errors import UserError
from raydec.features.encoder_front_end import CHUNK_FRAMES, NUM_CHUNKS
from raydec.features.encoder_source import find_encoder
from raydec.features.front_end import ChunkFormat, Scale, register_front_end
from raydec.features.pretrained import PretrainedFrontEnd, described

if TYPE_CHECKING:
    from torch import Tensor

    from raydec.features.audio import Recording

FRAME_SAMPLES = 320
"""A stored frame is the audio of one hidden state, 20 ms."""
MIN_CHUNK_FRAMES, MAX_CHUNK_FRAMES = 10, 1_500
"""Whisper's position table ends at 30 s; the convolutions of the others need 25 ms."""
LARGEST = 65_504.0
"""The largest float16: audio is not clipped."""
_EXTRACTOR_KEYS = ("do_normalize", "feature_size", "hop_length", "n_fft")
_FRAMES_PER_BLOCK = 3_000


@register_front_end
@dataclass(frozen=True)
class WaveformFrontEnd(PretrainedFrontEnd):
    """Audio at 16 kHz for a pretrained encoder inside the network; see :mod:`raydec.model.tuned_trunk`.

    Attributes, beside those of :class:`PretrainedFrontEnd`:
        encoder_config: its config, from which ``transformers`` builds it.
        extractor: what its feature extractor does to audio.
        sample_rate: of the waveform, in Hz.
    """

    name: ClassVar[str] = "waveform"
    trunk: ClassVar[str] = "raydec.model.tuned_trunk:build"
    scales: ClassVar[tuple[Scale, ...]] = ("plain",)
    is_normalized: ClassVar[bool] = False
    where_to_say: ClassVar[str] = "data.encoder=DIR in training, --encoder DIR in predict or export --bundle"

    encoder_config: dict[str, Any] = field(hash=False)
    extractor: dict[str, Any] = field(hash=False)
    sample_rate: int = 16_000

    @property
    def width(self) -> int:
        """Samples per stored frame."""
        return FRAME_SAMPLES

    def frames(self, waveform: Float32[np.ndarray, " sample"]) -> Float32[Tensor, "frame sample"]:
        """The waveform in frames; an incomplete last frame is dropped, unless it is the only one."""
        import torch

        missing = max(0, FRAME_SAMPLES - len(waveform))
        whole = np.pad(waveform, (0, missing))
        return torch.from_numpy(whole[: len(whole) // FRAME_SAMPLES * FRAME_SAMPLES]).view(-1, FRAME_SAMPLES)

    def blocks(self, recording: Recording) -> Iterator[Float32[Tensor, "_ sample"]]:
        """See :meth:`FrontEnd.blocks`; memory does not grow with the recording's length."""
        size = _FRAMES_PER_BLOCK * FRAME_SAMPLES
        if recording.is_kept or recording.levels.num_samples < size:
            yield self.frames(recording.samples())
            return
        waiting = np.empty(0, np.float32)
        for block in recording.blocks():
            waiting = np.concatenate([waiting, block])
            # The last part has at least one frame, so that none needs padding.
            while len(waiting) >= size + FRAME_SAMPLES:
                yield self.frames(waiting[:size])
                waiting = waiting[size:]
        yield self.frames(waiting)

    @property
    def usual_format(self) -> ChunkFormat:
        """The usual chunks of a second."""
        return ChunkFormat("plain", LARGEST, NUM_CHUNKS, CHUNK_FRAMES)

    def check_format(self, form: ChunkFormat) -> None:
        """See :meth:`FrontEnd.check_format`."""
        super().check_format(form)
        if not MIN_CHUNK_FRAMES <= form.chunk_frames <= MAX_CHUNK_FRAMES:
            raise UserError(
                f"features.chunk_frames={form.chunk_frames}: an encoder takes {MIN_CHUNK_FRAMES} to "
                f"{MAX_CHUNK_FRAMES} frames, 50 a second"
            )
        if form.speaker_normalization != "none":
            raise UserError(
                f"features.speaker_normalization={form.speaker_normalization}: audio has no mean to "
                "subtract; leave it unset, or prepare again without --tune"
            )

    def placed(self, location: str) -> WaveformFrontEnd:
        """See :meth:`FrontEnd.placed`."""
        return dataclasses.replace(self, location=location)

    def check_model(self, model: ModelConfig) -> None:
        """See :meth:`FrontEnd.check_model`: the encoder must be available, and `peft` if needed."""
        if model.kind in ("autoencoder", "vae"):
            raise UserError(
                f"model.kind={model.kind} reconstructs features, but the store contains audio; "
                "prepare again without --tune"
            )
        if model.encoder_tuning == "lora" and importlib.util.find_spec("peft") is None:
            raise UserError(
                'model.encoder_tuning=lora needs peft; install with: pip install "raydec[encoders]"'
            )
        self.folder()

    def whereabouts(self) -> dict[str, Any]:
        """See :meth:`FrontEnd.whereabouts`."""
        return {} if self.location is None else {"encoder_folder": self.location}

    def found_at(self, content: Mapping[str, Any]) -> WaveformFrontEnd:
        """See :meth:`FrontEnd.found_at`; a folder that no longer exists is ignored."""
        place = content.get("encoder_folder")
        return self.placed(place) if place and Path(place).is_dir() else self


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of an encoder's config that describe it, without those that could name code or paths."""
    others = ("_name_or_path", "auto_map", "quantization_config")
    return {key: value for key, value in config.items() if key not in others and "implementation" not in key}


def waveform_front_end(name: str, layers: str = "last") -> WaveformFrontEnd:
    """The front end for tuning a named encoder.

    Args:
        name: a folder, or ``hf:owner/name[@revision]``.
        layers: ``last``, ``all``, or numbers with commas; see :class:`PretrainedFrontEnd`.

    Raises:
        UserError: see :func:`raydec.features.encoder_source.find_encoder`; or a layer that it does not have.
    """
    source = find_encoder(name)
    return WaveformFrontEnd(
        **described(source, layers),
        encoder_config=architecture(source.config),
        extractor={key: source.extractor[key] for key in _EXTRACTOR_KEYS if key in source.extractor},
    )
