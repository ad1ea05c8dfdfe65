"""Run a pretrained encoder: hidden states of one recording, which depend only on the recording.

Recordings are fed one at a time and without padding. ``transformers`` pads Whisper's input to 30 s and
refuses any other length; here the position table is cut to the true length instead, a tenth of the work for a
clip of 3 s. The states differ from the padded ones, so a store records how they were made.
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
from raydec.features.pretrained import PretrainedFrontEnd

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
        self._extractor, self._network = read_encoder(front_end.folder(), front_end)
        self._network.to(self._device)
        if self._device.type == "cpu":
            _lay_out_for_few_rows(self._network)

    @torch.inference_mode()
    def hidden_states(self, waveform: Float32[np.ndarray, " sample"]) -> Float32[Tensor, "layer frame d"]:
        """The chosen hidden states, on the CPU.

        If the recording is longer than the encoder supports, it is encoded in equal pieces.

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
        states = all_hidden_states(self._network, values)
        return torch.cat([states[layer] for layer in self._layers])


def all_hidden_states(network: Any, values: Tensor) -> list[Tensor]:
    """The input of an encoder's first layer and the output of each layer, ``[clip, frame, d]``.

    Args:
        network: the network of ``transformers``; for Whisper, its encoder.
        values: clips of one length, from the encoder's feature extractor.
    """
    if not hasattr(network, "embed_positions"):
        output = network(values, output_hidden_states=True)
        return [*output.hidden_states[:-1], output.last_hidden_state]
    hidden = nn.functional.gelu(network.conv1(values))
    hidden = nn.functional.gelu(network.conv2(hidden)).permute(0, 2, 1)
    hidden = hidden + network.embed_positions.weight[: hidden.shape[1]]
    states = [hidden]
    for layer in network.layers:
        hidden = layer(hidden, None)
        states.append(hidden)
    return [*states[:-1], network.layer_norm(hidden)]


def chunk_statistics(
    hidden: Float32[Tensor, "layer frame d"], num_chunks: int, chunk_frames: int
) -> Float32[Tensor, "chunk width"]:
    """For each chunk and layer the mean of its hidden states, then their population standard deviation."""
    num_layers, _, size = hidden.shape
    chunks = chunk_utterance(hidden.permute(1, 0, 2).flatten(1), num_chunks, chunk_frames)
    by_layer = chunks.view(num_chunks, -1, num_layers, size)
    mean = by_layer.mean(dim=1)
    # As exact as torch's std, which is several times slower over a middle axis.
    std = (by_layer - mean[:, None]).square_().mean(dim=1).sqrt_()
    return torch.cat([mean, std], dim=2).flatten(1)


def _lay_out_for_few_rows(network: nn.Module) -> None:
    """Store the weights of linear layers column by column, in the order in which products read them.

    One short recording has about a hundred rows, so that reading the weights is a tenth of a layer's time.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.detach().t().contiguous().t(), requires_grad=False)


def load_encoder(front_end: EncoderFrontEnd) -> LoadedEncoder:
    """The encoder of a front end; a process reads it once.

    Raises:
        UserError: see :class:`LoadedEncoder`.
    """
    return _load(front_end, front_end.location)


@functools.lru_cache(maxsize=2)
def _load(front_end: EncoderFrontEnd, location: str | None) -> LoadedEncoder:
    return LoadedEncoder(front_end)


def read_encoder(folder: Path, front_end: PretrainedFrontEnd) -> tuple[Any, Any]:
    """An encoder's feature extractor, and its float32 network in evaluation mode; for Whisper, its encoder.

    Raises:
        UserError: ``transformers`` cannot read the files.
    """
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
