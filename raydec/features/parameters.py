"""What decides the numbers of a feature store. Without torch, which who opens a store may not need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Scale = Literal["power", "log"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class FeatureParameters:
    """What decides the numbers of a feature store. Two stores agree when these do.

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

    sample_rate: int = 16_000
    n_fft: int = 512
    hop_length: int = 256
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float = 8_000.0
    peak_normalize: bool = True
    remove_dc: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureParameters:
        """The inverse of :meth:`to_dict`; ``remove_dc``, which older stores and models lack, is off.

        Raises:
            ValueError: a key is missing or unknown, or a value has another type.
        """
        values = {"remove_dc": False, **values}
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            names = ", ".join(sorted(expected.symmetric_difference(values)))
            raise ValueError(f"feature parameters that are missing or unknown: {names}")
        kinds = {key: type(value) for key, value in cls().to_dict().items()}
        for key, value in values.items():
            if not isinstance(value, kinds[key]) and not (kinds[key] is float and isinstance(value, int)):
                raise ValueError(f"feature parameter {key} must be {kinds[key].__name__}, not {value!r}")
        return cls(**{key: kinds[key](value) for key, value in values.items()})

    def differences(self, other: FeatureParameters) -> list[str]:
        """Per parameter that differs: its name, this value, the other value."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{key} {mine[key]} instead of {theirs[key]}" for key in mine if mine[key] != theirs[key]]
