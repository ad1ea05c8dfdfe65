"""A pretrained speech encoder inside a network; only its tuned parameters belong to the network.

The encoder comes from ``transformers`` and stays in evaluation mode: its own dropout, layer drop and masking
would use a process's global generators, so that results would depend on the number of workers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raydec.errors import UserError
from raydec.features.encoder_network import all_hidden_states, read_encoder
from raydec.features.waveform_front_end import WaveformFrontEnd, architecture

# The feed-forward layers of all families. Adapters in WavLM's attention would have no effect, because it uses
# its projections' weights without calling the layers.
_ADAPTED = ("intermediate_dense", "output_dense", "fc1", "fc2")
# Not tuned: its activations need most of the memory, and it is usually frozen.
_CONVOLUTIONS = "feature_extractor."
# Batch size without gradients: few chunks keep a GPU busy, and the convolutions need memory for each.
_CHUNKS_PER_PASS = 64


class SpeechEncoder(nn.Module):
    """Maps audio to statistics of hidden states. Its parameters are those saved with a network.

    Args:
        front_end: describes the encoder.
        tuning: its parameters; ``frozen``: none; ``lora``: those of its adapters; ``full``: all weights, of
            which the convolutions of the WavLM, HuBERT and wav2vec2 families are not trained.
        lora_rank: rank of the adapters.

    Attributes:
        front_end: describes and locates the encoder.
    """

    def __init__(
        self, front_end: WaveformFrontEnd, tuning: Literal["frozen", "lora", "full"], lora_rank: int
    ) -> None:
        super().__init__()
        self.front_end = front_end
        self._tuning = tuning
        self._lora_rank = lora_rank
        # In a list, so that this module has no parameters except those registered below.
        self._held: list[nn.Module] = []
        if tuning == "lora":
            with torch.device("meta"):
                skeleton = self._adapted(_skeleton(front_end))
            for name, parameter in skeleton.named_parameters():
                if "lora_" in name:
                    self.register_parameter(_key(name), nn.Parameter(torch.zeros(parameter.shape)))
        elif tuning == "full":
            network = _skeleton(front_end)
            for name, parameter in network.named_parameters():
                self.register_parameter(_key(name), parameter)
            self._held = [network.eval()]

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw the adapters' first matrices; the second are 0, so that adapters have no effect at the start.

        Args:
            generator: only its seed is used, so that the head's initial weights do not depend on the tuning.
        """
        own = torch.Generator().manual_seed(generator.initial_seed())
        for name, parameter in self.named_parameters():
            if "lora_A" in name:
                bound = parameter.shape[1] ** -0.5
                parameter.copy_((torch.rand(parameter.shape, generator=own) * 2 - 1) * bound)

    @torch.no_grad()
    def read_pretrained(self) -> None:
        """Read the pretrained weights from the front end's folder, or from the Hub.

        Raises:
            UserError: the encoder is not found, or is another one.
        """
        _, network = read_encoder(self.front_end.folder(), self.front_end)
        network = _cut_off(network, self.front_end)
        if self._tuning != "full":
            self._hold(network)
            return
        own = dict(self.named_parameters())
        for name, parameter in network.named_parameters():
            own[_key(name)].copy_(parameter)

    def recompute_layers(self) -> None:
        """Keep only the input of each layer for the backward pass, which computes the layer again."""
        for layer in _layers(self._held[0]):
            layer.forward = functools.partial(_recomputed, layer.forward)

    def forward(self, audio: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk layer statistic"]:
        """For each chunk and layer the mean over time of its hidden states, then their standard deviation."""
        if not self._held:
            self.read_pretrained()
            self._held[0].to(audio.device)
        if not len(audio):
            # Encoders reject an empty batch, but a worker may have one.
            return audio.new_zeros(0, len(self.front_end.layers), 2 * self.front_end.hidden_size)
        if torch.is_grad_enabled():
            return self._statistics(audio)
        return torch.cat([self._statistics(part) for part in audio.split(_CHUNKS_PER_PASS)])

    def _statistics(self, audio: Tensor) -> Tensor:
        states = all_hidden_states(self._held[0], encoder_input(audio, self.front_end))
        chosen = torch.stack([states[layer] for layer in self.front_end.layers], dim=1).float()
        variance, mean = torch.var_mean(chosen, dim=2, correction=0)
        return torch.cat([mean, (variance + 1e-6).sqrt()], dim=2)

    def _hold(self, network: nn.Module) -> None:
        """Use this network, with its tuned parameters replaced by those of this module."""
        network.requires_grad_(False)
        if self._tuning == "lora":
            network = self._adapted(network)
        own = dict(self.named_parameters())
        for name, _ in list(network.named_parameters()):
            if _key(name) in own:
                module, _, leaf = name.rpartition(".")
                setattr(network.get_submodule(module), leaf, own[_key(name)])
        self._held = [network.eval()]

    def _adapted(self, network: nn.Module) -> nn.Module:
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(
            r=self._lora_rank,
            lora_alpha=2 * self._lora_rank,
            target_modules=list(_ADAPTED),
            layers_to_transform=list(range(max(self.front_end.layers))),
            layers_pattern="layers",
        )
        return inject_adapter_in_model(config, network)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> SpeechEncoder:
        # Called by `.to(device)`. Parameters keep their identity, so shared ones stay shared.
        super()._apply(function, recurse)
        for network in self._held:
            network._apply(function, recurse)
        return self


def encoder_input(audio: Float[Tensor, "chunk sample"], front_end: WaveformFrontEnd) -> Tensor:
    """Apply the encoder's feature extractor to each chunk separately, on the chunks' device."""
    if front_end.family == "whisper":
        with torch.autocast(audio.device.type, enabled=False):
            return _log_mel(audio, front_end.extractor)
    if not front_end.extractor.get("do_normalize", True):
        return audio
    variance, mean = torch.var_mean(audio, dim=1, correction=0, keepdim=True)
    return (audio - mean) / (variance + 1e-7).sqrt()


def _log_mel(audio: Tensor, extractor: dict[str, Any]) -> Tensor:
    """Whisper's input, as ``WhisperFeatureExtractor`` computes it without padding."""
    n_fft, num_bands = extractor.get("n_fft", 400), extractor.get("feature_size", 80)
    window = torch.hann_window(n_fft, device=audio.device)
    spectrum = torch.stft(audio, n_fft, extractor.get("hop_length", 160), window=window, return_complex=True)
    power = _mel_filters(n_fft, num_bands).to(audio.device) @ spectrum[..., :-1].abs().square()
    logs = power.clamp(min=1e-10).log10()
    return (torch.maximum(logs, logs.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


@functools.lru_cache(maxsize=2)
def _mel_filters(n_fft: int, num_bands: int) -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        1 + n_fft // 2, num_bands, 0.0, 8_000.0, 16_000, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters.T).float().contiguous()


def _skeleton(front_end: WaveformFrontEnd) -> nn.Module:
    """The encoder that a front end describes, with meaningless weights."""
    from transformers import CONFIG_MAPPING, AutoModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    try:
        config: Any = CONFIG_MAPPING[front_end.family].from_dict(
            {**architecture(front_end.encoder_config), "dtype": "float32"}
        )
        network = WhisperEncoder(config) if front_end.family == "whisper" else AutoModel.from_config(config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"encoder {front_end.encoder} cannot be built: {str(error).splitlines()[0]}"
        ) from None
    return _cut_off(network, front_end)


def _cut_off(network: nn.Module, front_end: WaveformFrontEnd) -> nn.Module:
    """Remove the layers above the last chosen one, and freeze the weights that are never trained."""
    is_whisper, last = front_end.family == "whisper", max(front_end.layers)
    layers, prefix = _layers(network), "" if is_whisper else "encoder."
    idle = [_CONVOLUTIONS, "masked_spec_embed"]
    if last < len(layers):
        # One more layer is kept, because some encoders normalise the output of their last layer.
        del layers[last + 1 :]
        idle.append(f"{prefix}layers.{last}.")
        if is_whisper or getattr(network.config, "do_stable_layer_norm", False):
            idle.append(f"{prefix}layer_norm.")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(tuple(idle)))
    return network


def _layers(network: Any) -> nn.ModuleList:
    layers = network.layers if hasattr(network, "layers") else network.encoder.layers
    assert isinstance(layers, nn.ModuleList)
    return layers


def _key(name: str) -> str:
    """The name of a parameter in a module that is not nested."""
    return name.replace(".", "-")


def _recomputed(layer: Callable[..., Any], *args: Any, **more: Any) -> Any:
    if not torch.is_grad_enabled():
        return layer(*args, **more)
    # The layers draw no random numbers.
    return checkpoint(layer, *args, use_reentrant=False, preserve_rng_state=False, **more)
