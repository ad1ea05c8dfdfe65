"""Run a pretrained encoder: hidden states of one recording, which depend on nothing but the recording.

Recordings are fed one at a time and without padding. ``transformers`` pads Whisper's input to 30 s and
refuses any other length; here the position table is cut to the true length instead, a tenth of the work for a
clip of 3 s. The states differ from the padded ones, so a store says how its own were made.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from raydec.errors import UserError
from raydec.features.chunking import chunk_utterance
from raydec.features.encoder_front_end import EncoderFrontEnd

# Whisper's position table ends at 30 s; attention over more than two minutes would need gigabytes.
_LONGEST_S = {"whisper": 30.0}
_LONGEST_OTHERS_S = 120.0
# Convolutions need 25 ms; shorter recordings are followed by zeros.
_FEWEST_SAMPLES = 800


class LoadedEncoder:
    """An encoder in memory.

    Args:
        front_end: names its files and the layers that are kept.

    Raises:
        UserError: its files are not found, damaged, or those of another encoder.
    """

    def __init__(self, front_end: EncoderFrontEnd) -> None:
        self._layers = front_end.layers
        self._is_whisper = front_end.family == "whisper"
        self._longest = int(_LONGEST_S.get(front_end.family, _LONGEST_OTHERS_S) * front_end.sample_rate)
        self._rate = front_end.sample_rate
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._extractor, self._network = _read(front_end.folder(), front_end)
        self._network.to(self._device)

    @torch.inference_mode()
    def hidden_states(self, waveform: Float32[np.ndarray, " sample"]) -> Float32[Tensor, "layer frame d"]:
        """The chosen hidden states, on the CPU.

        What is longer than the encoder takes is encoded in equal pieces.

        Args:
            waveform: samples at 16 kHz, at least one.
        """
        pieces = [self._piece(piece) for piece in self._pieces(waveform)]
        return torch.cat(pieces, dim=1).float().cpu()

    def _pieces(self, waveform: Float32[np.ndarray, " sample"]) -> Iterator[np.ndarray]:
        missing = max(0, _FEWEST_SAMPLES - len(waveform))
        yield from np.array_split(np.pad(waveform, (0, missing)), -(-len(waveform) // self._longest))

    def _piece(self, samples: np.ndarray) -> Tensor:
        padding = {"padding": "do_not_pad"} if self._is_whisper else {}
        features = self._extractor(samples, sampling_rate=self._rate, return_tensors="pt", **padding)
        values = next(iter(features.values()))[:1].to(self._device)
        states = self._whisper(values) if self._is_whisper else self._others(values)
        return torch.cat([states[layer] for layer in self._layers])

    def _others(self, values: Tensor) -> list[Tensor]:
        output = self._network(values, output_hidden_states=True)
        return [*output.hidden_states[:-1], output.last_hidden_state]

    def _whisper(self, mel: Tensor) -> list[Tensor]:
        encoder = self._network
        hidden = nn.functional.gelu(encoder.conv1(mel))
        hidden = nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        states = [hidden]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
            states.append(hidden)
        return [*states[:-1], encoder.layer_norm(hidden)]


def chunk_statistics(
    hidden: Float32[Tensor, "layer frame d"], num_chunks: int, chunk_frames: int
) -> Float32[Tensor, "chunk width"]:
    """For each chunk and layer the mean of its hidden states, then their population standard deviation."""
    num_layers, _, size = hidden.shape
    chunks = chunk_utterance(hidden.permute(1, 0, 2).flatten(1), num_chunks, chunk_frames)
    by_layer = chunks.view(num_chunks, -1, num_layers, size)
    mean, std = by_layer.mean(dim=1), by_layer.std(dim=1, unbiased=False)
    return torch.cat([mean, std], dim=2).flatten(1)


def load_encoder(front_end: EncoderFrontEnd) -> LoadedEncoder:
    """The encoder of a front end; a process reads it once.

    Raises:
        UserError: see :class:`LoadedEncoder`.
    """
    return _load(front_end, front_end.location)


@functools.lru_cache(maxsize=2)
def _load(front_end: EncoderFrontEnd, location: str | None) -> LoadedEncoder:
    return LoadedEncoder(front_end)


def _read(folder: Path, front_end: EncoderFrontEnd) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoFeatureExtractor, AutoModel
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        network = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).eval()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise UserError(f"encoder {folder} cannot be loaded: {str(error).splitlines()[0]}") from None
    finally:
        transformers_logging.set_verbosity(level)
    return extractor, network.encoder if front_end.family == "whisper" else network
