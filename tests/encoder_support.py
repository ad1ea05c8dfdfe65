"""Tiny random encoders, as transformers would save them, and what transformers makes of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

SIZES: dict[str, Any] = {
    # 16 channels a group of the positional convolution: on CPUs with AMX, oneDNN 3.10 computes bfloat16
    # convolutions of 6 to 12 channels a group wrongly. Published encoders have 48 or more.
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 8),
    "conv_stride": (5, 8, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def tiny_encoder(folder: Path, family: str, seed: int = 0, rate: int = 16_000, **config: Any) -> Path:
    """Save a random encoder of a family with its feature extractor; a few thousand parameters."""
    import transformers as t

    torch.manual_seed(seed)
    if family == "whisper":
        sizes = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "vocab_size": 8}
        tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
        model = t.WhisperModel(t.WhisperConfig(**sizes, **decoder, **tokens, num_mel_bins=80))
        extractor: Any = t.WhisperFeatureExtractor(feature_size=80, sampling_rate=rate)
    else:
        kinds = {
            "wavlm": (t.WavLMConfig, t.WavLMModel),
            "hubert": (t.HubertConfig, t.HubertModel),
            "wav2vec2": (t.Wav2Vec2Config, t.Wav2Vec2Model),
        }
        make_config, make_model = kinds[family]
        model = make_model(make_config(**{**SIZES, **config}))
        extractor = t.Wav2Vec2FeatureExtractor(sampling_rate=rate, do_normalize=True)
    # The usual initialisation is so small that layers would hardly differ.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@torch.inference_mode()
def by_transformers(folder: Path, samples: np.ndarray) -> list[torch.Tensor]:
    """All hidden states of one clip from transformers' own forward pass."""
    from transformers import AutoFeatureExtractor, AutoModel

    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    if model.config.model_type != "whisper":
        values = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_values
        output = model(values, output_hidden_states=True)
        return [state[0] for state in (*output.hidden_states[:-1], output.last_hidden_state)]
    encoder, pieces = model.encoder, []
    table = encoder.embed_positions.weight
    for piece in np.array_split(samples, -(-len(samples) // 480_000)):
        mel = extractor(piece, sampling_rate=16_000, return_tensors="pt", padding="do_not_pad").input_features
        # An encoder whose longest input is this clip: transformers then neither pads nor refuses it.
        # Half positions, for odd lengths, are more than its config would take by itself.
        object.__setattr__(encoder.config, "max_source_positions", mel.shape[-1] / 2)
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(table[: -(-mel.shape[-1] // 2)])
        output = encoder(mel, output_hidden_states=True)
        pieces.append((*output.hidden_states[:-1], output.last_hidden_state))
    return [torch.cat(states, dim=1)[0] for states in zip(*pieces, strict=True)]
