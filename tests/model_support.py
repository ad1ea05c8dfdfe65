"""Small models with random weights, and sounds to try them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from corpus_support import mel_format

from raydec.config import ModelConfig
from raydec.features.mel_front_end import MelFrontEnd
from raydec.model.assembly import build_network
from raydec.model.directory import ChunkFormat, NetworkSpec, TrainedModel
from raydec.model.network import Network


def small_network(num_attributes: int, seed: int, **model: Any) -> tuple[ModelConfig, Network]:
    settings = ModelConfig.model_validate(
        {"channels": (4,) * 7, "embedding_dim": 16, "latent_dim": 6, **model}
    )
    network = build_network(settings, MelFrontEnd(), mel_format(), num_attributes, 5)
    generator = torch.Generator().manual_seed(seed)
    network.initialize(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    network.train()(torch.randn(22, 62, 128, generator=generator))
    return settings, network.eval()


def small_model(centroids: bool = True, **changes: Any) -> TrainedModel:
    model = changes.pop("model", {})
    networks = []
    for seed, attributes in enumerate([("arousal", "valence"), ("dominance",)]):
        settings, network = small_network(len(attributes), seed, **model)
        numbers = tuple(float(seed + i + 1) for i in range(len(attributes)))
        spec = NetworkSpec(attributes, 5, settings.model_dump(mode="json"), numbers, numbers)
        networks.append((spec, network))
    networks = changes.pop("networks", networks)
    rng = np.random.default_rng(0)
    width = networks[0][1].embedding_dim
    content = {
        "networks": networks,
        "front_end": MelFrontEnd(),
        "chunks": ChunkFormat("log", 3.0, 11, 62),
        "feature_mean": np.full(128, -4.0, np.float32),
        "feature_std": np.full(128, 3.0, np.float32),
        "centroids": rng.normal(size=(5, width)).astype(np.float32) if centroids else None,
    }
    return TrainedModel(**(content | changes))


def speech(seconds: float = 2.0, rate: int = 16_000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (np.sin(2 * np.pi * 200 * time) * np.sin(9 * time) * 0.5).astype(np.float32)


def small_classifier(attributes: tuple[str, ...] = ("arousal",), **changes: Any) -> TrainedModel:
    """One network that tells three emotion classes apart, beside attributes."""
    settings, network = small_network(len(attributes) + 3, 7)
    scale = (2.0,) * len(attributes)
    classes = {"emotion": ("A", "H", "N")}
    spec = NetworkSpec(attributes, 5, settings.model_dump(mode="json"), scale, scale, classes)
    return small_model(networks=[(spec, network)], **changes)
