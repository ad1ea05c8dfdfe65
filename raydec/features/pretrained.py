"""The common base of front ends with a pretrained encoder: its identity and its files. Torch-free."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from raydec.errors import UserError
from raydec.features.encoder_source import EncoderSource, Family, find_encoder
from raydec.features.front_end import FrontEnd

HOP_S = 0.02
"""Every supported family gives 50 hidden states a second."""
MAX_CHUNKS = 1_000

Kind = TypeVar("Kind", bound="PretrainedFrontEnd")


@dataclass(frozen=True)
class PretrainedFrontEnd(FrontEnd):
    """Base of front ends with a pretrained encoder; subclasses are frozen dataclasses with more fields.

    Attributes:
        encoder: its name.
        revision: commit on the Hub; None for a folder.
        weights_sha256: checksum of its weights; an encoder with another is refused.
        family: its architecture.
        hidden_size: values per hidden state.
        layers: hidden states that are used: 0 is the input of the first layer, i the output of layer i; that
            of the last layer includes the encoder's final normalisation, if any.
        location: folder of the encoder's files, or its name on the Hub; not a parameter of the features.
        where_to_say: options that name its folder.
    """

    where_to_say: ClassVar[str] = "--encoder DIR"
    encoder: str
    revision: str | None
    weights_sha256: str
    family: Family
    hidden_size: int
    layers: tuple[int, ...]
    location: str | None = field(default=None, compare=False, kw_only=True)

    @property
    def hop_s(self) -> float:
        """Seconds from one hidden state to the next."""
        return HOP_S

    def check(self) -> None:
        """See :meth:`FrontEnd.check`."""
        sane = (
            1 <= self.hidden_size <= 65_536
            and 1 <= len(self.layers) <= 1_000
            and all(0 <= layer <= 1_000 for layer in self.layers)
            and self.sample_rate == 16_000
        )
        if not sane:
            raise ValueError(f"features are out of range: {self.to_dict()}")

    def to_dict(self) -> dict[str, Any]:
        """The parameters as a JSON object, without the encoder's location."""
        return {key: value for key, value in super().to_dict().items() if key != "location"}

    @classmethod
    def from_dict(cls: type[Kind], values: Any) -> Kind:
        """The inverse of :meth:`to_dict`."""
        return super().from_dict({**values, "location": None})

    def differences(self, other: FrontEnd) -> list[str]:
        """See :meth:`FrontEnd.differences`; names and revisions may differ where the weights are the same."""
        found = super().differences(other)
        if type(other) is not type(self) or other.weights_sha256 != self.weights_sha256:
            return found
        return [line for line in found if not line.startswith(("encoder ", "revision "))]

    def folder(self, location: str | Path | None = None) -> Path:
        """The folder of the encoder's files: the given one, the one found before, or a download from the Hub.

        Raises:
            UserError: the folder does not contain this encoder, or its location is unknown.
        """
        place = location or self.location
        if place is None and self.revision is None:
            raise UserError(
                f"the features are those of encoder {self.encoder}, which was a local folder; "
                f"name its folder with {self.where_to_say}"
            )
        found = self.located(str(place or f"{self.encoder}@{self.revision}")).location
        assert found is not None
        return Path(found)

    def located(self: Kind, location: str) -> Kind:
        """The same front end, with the encoder's files at this location.

        Raises:
            UserError: the location does not contain this encoder.
        """
        source = find_encoder(location)
        if source.weights_sha256 != self.weights_sha256:
            raise UserError(
                f"encoder {location} has weights of checksum {source.weights_sha256[:16]}; the features were "
                f"made with {self.encoder}, checksum {self.weights_sha256[:16]}; name that encoder"
            )
        return dataclasses.replace(self, location=str(source.folder))


def described(source: EncoderSource, layers: str) -> dict[str, Any]:
    """The fields of a :class:`PretrainedFrontEnd` for an encoder that was found.

    Args:
        source: the encoder.
        layers: ``last``, ``all``, or numbers with commas.

    Raises:
        UserError: a layer that it does not have.
    """
    return {
        "encoder": source.name,
        "revision": source.revision,
        "weights_sha256": source.weights_sha256,
        "family": source.family,
        "hidden_size": source.hidden_size,
        "layers": _chosen_layers(layers, source),
        "location": str(source.folder),
    }


def _chosen_layers(layers: str, source: EncoderSource) -> tuple[int, ...]:
    last = source.num_layers
    if layers in ("last", "all"):
        return (last,) if layers == "last" else tuple(range(last + 1))
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in layers.split(",")]
    if not all(0 <= number <= last for number in numbers) or len(set(numbers)) != len(numbers):
        raise UserError(
            f"--layers {layers}: write last, all, or different numbers from 0 to {last} with commas; "
            f"{source.name} has {last} layers, and 0 is the input of the first"
        )
    return tuple(sorted(numbers))
