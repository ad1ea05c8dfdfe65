"""A trained model in memory: its networks, and everything else that prediction needs."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from raydec.features.front_end import ChunkFormat, FrontEnd
from raydec.model.network import Network
from raydec.model.outputs import Outputs


@dataclass(frozen=True)
class NetworkSpec:
    """What one network predicts and how it was built.

    Attributes:
        attributes: emotional attributes in the order of its outputs.
        num_clusters: width of its cluster head.
        model: its :class:`raydec.config.ModelConfig` as a dictionary.
        label_mean: mean of each attribute's training labels, which undoes the normalisation.
        label_std: their population standard deviation.
        classes: groups of classes whose logits follow the attributes; see
            :class:`raydec.model.outputs.Outputs`.
    """

    attributes: tuple[str, ...]
    num_clusters: int
    model: dict[str, Any]
    label_mean: tuple[float, ...]
    label_std: tuple[float, ...]
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def outputs(self) -> Outputs:
        """The columns of its emotion branch."""
        return Outputs(self.attributes, self.label_mean, self.label_std, self.classes)


@dataclass
class TrainedModel:
    """A model in memory, with all that a model directory holds.

    Attributes:
        networks: the networks and their specifications; no attribute is predicted twice.
        front_end: computes frames from recordings.
        chunks: chunk geometry and feature scale.
        feature_mean: mean of each value of a frame, on ``chunks.scale``.
        feature_std: population standard deviation of each value.
        centroids: cluster centroids in the embedding space of the first network.
        resampler: for audio at other rates: ``soxr``, the default, or ``kaiser`` for models whose published
            scores depend on it; see :mod:`raydec.features.kaiser`.
        extra: JSON values for information: ``scores`` (split to attribute to CCC), ``run``, ``corpus``,
            ``synthetic``, ``label_range``, ``best_epoch``, ``raydec_version``, ``source``.
    """

    networks: list[tuple[NetworkSpec, Network]]
    front_end: FrontEnd
    chunks: ChunkFormat
    feature_mean: Float[np.ndarray, " width"]
    feature_std: Float[np.ndarray, " width"]
    centroids: Float[np.ndarray, "cluster d"] | None = None
    resampler: Literal["soxr", "kaiser"] = "soxr"
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> Outputs:
        """The outputs of all networks together."""
        return functools.reduce(Outputs.merge, (spec.outputs for spec, _ in self.networks))

    @property
    def attributes(self) -> tuple[str, ...]:
        """All attributes, network by network."""
        return tuple(name for spec, _ in self.networks for name in spec.attributes)

    @property
    def label_range(self) -> tuple[float, float] | None:
        """Lowest and highest label of the training corpus; None if the model does not record them."""
        match self.extra.get("label_range"):
            case [int() | float() as low, int() | float() as high] if low < high:
                return float(low), float(high)
        return None
