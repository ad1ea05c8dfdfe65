"""The front end interface: how recordings become frames in a feature store, and frames network input.

A front end is a frozen dataclass whose fields are its parameters. It is torch-free to import, so that opening
a store does not import torch; the methods that compute import what they need. A new one is one module with a
class under :func:`register_front_end`, or named by an entry point of the group ``raydec.front_ends``.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
from jaxtyping import Float, Float32, Int64
from pydantic import TypeAdapter, ValidationError

from raydec.config import FeatureConfig, ModelConfig
from raydec.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from raydec.features.audio import Recording

Scale = Literal["power", "log", "plain"]
SCALES: tuple[Scale, ...] = get_args(Scale)
"""Scales of which a store may keep statistics: mel power, its logarithm, or unchanged values."""
ENTRY_POINTS = "raydec.front_ends"


@dataclass(frozen=True)
class ChunkFormat:
    """How stored frames become network input.

    Attributes:
        scale: on which features are normalised.
        clip: normalised features are limited to +-clip.
        num_chunks: chunks per utterance.
        chunk_frames: frames per chunk.
        short: handling of utterances shorter than a chunk; see
            :func:`raydec.features.chunking.chunk_utterance`.
        speaker_normalization: ``mean``: a speaker's mean is subtracted before the normalisation; see
            :mod:`raydec.features.speaker_means`.
    """

    scale: Scale
    clip: float
    num_chunks: int
    chunk_frames: int
    short: Literal["tile", "as_is"] = "tile"
    speaker_normalization: Literal["none", "mean"] = "none"


class FrontEnd(ABC):
    """Base of all front ends; subclasses are frozen dataclasses.

    Two stores are compatible if their front ends have the same name and parameters. All parameters must be
    representable in JSON: a model directory stores its front end by :meth:`to_dict`.

    Attributes:
        name: identifies it in stores and model directories.
        trunk: ``module:function`` that builds the first part of a network, called with a
            :class:`raydec.config.ModelConfig`, the front end and a :class:`ChunkFormat`; it returns a
            :class:`raydec.model.trunk.Trunk`.
        scales: those for which a store keeps statistics of its frames.
        sample_rate: of its input waveforms, in Hz.
        remove_dc: whether it removes a DC offset, so that no warning is needed.
        cost: of an utterance, relative to mel frames; decides whether several processes are worthwhile.
        is_normalized: whether frames are normalised by the statistics of the training utterances.
    """

    name: ClassVar[str]
    trunk: ClassVar[str]
    scales: ClassVar[tuple[Scale, ...]]
    sample_rate: int
    remove_dc: bool = False
    cost: ClassVar[float] = 1.0
    is_normalized: ClassVar[bool] = True

    @property
    @abstractmethod
    def width(self) -> int:
        """Values per frame."""

    @property
    @abstractmethod
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""

    @abstractmethod
    def frames(self, waveform: Float32[np.ndarray, " sample"]) -> Float32[Tensor, "frame width"]:
        """The frames of one recording, at least one, independent of other recordings."""

    def blocks(self, recording: Recording) -> Iterator[Float32[Tensor, "_ width"]]:
        """The frames of a recording of any length, in blocks.

        Raises:
            AudioError: the file can no longer be read.
        """
        yield self.frames(recording.samples())

    @property
    @abstractmethod
    def usual_format(self) -> ChunkFormat:
        """The default chunk format."""

    def chunk_format(self, features: FeatureConfig) -> ChunkFormat:
        """The chunk format of a config; unset values are taken from the default format.

        Raises:
            UserError: see :meth:`check_format`.
        """
        given = {key: value for key, value in features.model_dump().items() if value is not None}
        form = dataclasses.replace(self.usual_format, **given)
        self.check_format(form)
        return form

    def check_format(self, form: ChunkFormat) -> None:
        """Refuse chunk formats that this front end does not support.

        Raises:
            UserError: naming the config's key, its value and its limits.
        """
        if form.scale not in self.scales:
            raise UserError(
                f"features.scale={form.scale}: front end {self.name} only has {' and '.join(self.scales)}; "
                "leave it unset"
            )

    def placed(self: Kind, location: str) -> Kind:
        """The same front end, with its pretrained encoder at a place; see ``data.encoder``.

        Raises:
            UserError: networks on its frames run no encoder.
        """
        raise UserError(
            f"data.encoder={location}: the store contains {self.name} features, and no encoder is run; "
            "leave it unset"
        )

    def check_model(self, model: ModelConfig) -> None:
        """Refuse networks that this front end does not support, before anything is trained.

        Args:
            model: the network's settings.

        Raises:
            UserError: naming the config's key, its value and a remedy.
        """
        if model.encoder_tuning != "frozen":
            raise UserError(
                f"model.encoder_tuning={model.encoder_tuning}: {self.name} features in a store are fixed; "
                "prepare it again with --encoder NAME_OR_DIR --tune"
            )

    def whereabouts(self) -> dict[str, Any]:
        """Entries of ``store.json`` with the location of external files; they are not parameters."""
        return {}

    def found_at(self: Kind, content: Mapping[str, Any]) -> Kind:
        """The same front end with the :meth:`whereabouts` that a ``store.json`` has."""
        return self

    def check(self) -> None:
        """Refuse nonsensical parameters before memory of their size is allocated.

        Raises:
            ValueError: names the parameters.
        """
        return

    def of_this_version(self) -> FrontEnd:
        """The front end with the parameters of this version, which stores must have by default."""
        return self

    def chunk_seconds(
        self,
        form: ChunkFormat,
        places: Int64[np.ndarray, " chunk"],
        num_frames: Int64[np.ndarray, " chunk"],
        duration_s: Float[np.ndarray, " chunk"],
    ) -> tuple[Float[np.ndarray, " chunk"], Float[np.ndarray, " chunk"]]:
        """Start and end of chunks in their utterances, in seconds; a chunk ends where its utterance ends.

        Args:
            form: the chunk geometry.
            places: index of each chunk in its utterance.
            num_frames: stored frames of its utterance.
            duration_s: duration of its utterance.
        """
        from raydec.features.chunking import chunk_starts

        starts = chunk_starts(num_frames, form.num_chunks, form.chunk_frames)[np.arange(len(places)), places]
        return starts * self.hop_s, np.minimum((starts + form.chunk_frames) * self.hop_s, duration_s)

    def to_dict(self) -> dict[str, Any]:
        """The parameters as a JSON object, without the name."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls: type[Kind], values: Mapping[str, Any]) -> Kind:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: a parameter is missing, unknown, or has the wrong type.
        """
        expected = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if set(values) != expected:
            names = ", ".join(sorted(expected.symmetric_difference(values)))
            raise ValueError(f"missing or unknown feature parameters: {names}")
        try:
            # Validated as JSON, in which a list may be a tuple and an integer a float.
            return TypeAdapter(cls).validate_json(json.dumps(dict(values)), strict=True)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise ValueError(
                f"feature parameter {key}={problem['input']!r}: {problem['msg'].lower()}"
            ) from None

    def differences(self, other: FrontEnd) -> list[str]:
        """One description per parameter that differs: its name, this value, the other value."""
        if self.name != other.name:
            return [f"front end {self.name} instead of {other.name}"]
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{key} {mine[key]} instead of {theirs[key]}" for key in mine if mine[key] != theirs[key]]

    def resolve(self, features: FeatureConfig) -> FeatureConfig:
        """A config's section with all values set.

        Raises:
            UserError: see :meth:`chunk_format`.
        """
        filled = dataclasses.asdict(self.chunk_format(features))
        return features.model_copy(update={key: filled[key] for key in FeatureConfig.model_fields})


Kind = TypeVar("Kind", bound=FrontEnd)
_registered: dict[str, type[FrontEnd]] = {}
_BUILT_IN = {
    "encoder": "raydec.features.encoder_front_end",
    "mel": "raydec.features.mel_front_end",
    "waveform": "raydec.features.waveform_front_end",
}


def register_front_end(kind: type[Kind]) -> type[Kind]:
    """Class decorator: make this front end available by its name.

    Raises:
        ValueError: another class has the same name.
    """
    other = _registered.setdefault(kind.name, kind)
    if (other.__module__, other.__qualname__) != (kind.__module__, kind.__qualname__):
        raise ValueError(f"front end {kind.name!r} is already {other.__module__}.{other.__qualname__}")
    _registered[kind.name] = kind
    return kind


def front_end_kind(name: str) -> type[FrontEnd]:
    """The class of a front end: built-in, registered, or from an installed package.

    Raises:
        UserError: there is no front end of this name.
    """
    if name not in _registered and name in _BUILT_IN:
        import_module(_BUILT_IN[name])
    if name not in _registered:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            register_front_end(entry.load())
    if name not in _registered:
        known = ", ".join(sorted({*_registered, *_BUILT_IN}))
        raise UserError(
            f"unknown front end {name!r}; known: {known}; import the module that registers it, or "
            f"install the package that provides it as an entry point of {ENTRY_POINTS}"
        )
    return _registered[name]


def front_end_of(content: Mapping[str, Any]) -> FrontEnd:
    """The front end of a ``store.json`` or a model's ``config.json``.

    Older files do not name their front end; theirs is that of mel frames.

    Raises:
        UserError: see :func:`front_end_kind`.
        ValueError: see :meth:`FrontEnd.from_dict`.
    """
    return front_end_kind(content.get("front_end", "mel")).from_dict(content["features"]).found_at(content)
