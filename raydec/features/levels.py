"""Levels of a recording, measured block by block, and warnings about DC offsets and clicks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

_STEP_S = 0.01
# Measured on recorded speech: see docs/own-data.md.
_LARGE_OFFSET = 0.05
_QUIET, _MAX_LOUD_SHARE, _MAX_LOUD_STEPS, _MIN_STEPS = 0.25, 0.002, 3, 30


@dataclass(frozen=True)
class Levels:
    """Levels of the samples of a recording.

    Attributes:
        num_samples: number of samples.
        lowest: the smallest sample.
        highest: the largest sample.
        mean: of all samples, in float64; the DC offset.
        step_peaks: the largest magnitude of each 10 ms.
    """

    num_samples: int
    lowest: float
    highest: float
    mean: float
    step_peaks: Float32[np.ndarray, " step"]

    @property
    def peak(self) -> float:
        """The largest magnitude."""
        return max(-self.lowest, self.highest)

    def warnings(self, remove_dc: bool = False) -> tuple[str, ...]:
        """Warnings about hardly audible faults that change predictions: a DC offset, and clicks.

        A recording has a click if at most three pieces of 10 ms (0.2% of a long recording) are louder than a
        quarter of the peak.

        Args:
            remove_dc: the offset will be removed, so it needs no warning.
        """
        return (*(() if remove_dc else self._offset_warning()), *self._click_warning())

    def _offset_warning(self) -> tuple[str, ...]:
        share = abs(self.mean) / self.peak if self.peak > 0 else 0.0
        if share < _LARGE_OFFSET:
            return ()
        return (f"a DC offset of {share:.0%} of the peak changes predictions; remove it, or use --remove-dc",)

    def _click_warning(self) -> tuple[str, ...]:
        num_steps = len(self.step_peaks)
        if num_steps < _MIN_STEPS:
            return ()
        num_loud = int((self.step_peaks > _QUIET * self.peak).sum())
        if num_loud > max(_MAX_LOUD_STEPS, _MAX_LOUD_SHARE * num_steps):
            return ()
        loudest_s = int(self.step_peaks.argmax()) * _STEP_S
        usual_db = 20 * np.log10(self.peak / max(float(np.quantile(self.step_peaks, 0.95)), 1e-9))
        return (
            f"a click at {loudest_s:.2f} s is {usual_db:.0f} dB above the rest, which therefore counts as "
            "quiet speech; remove the click",
        )


@dataclass
class LevelMeter:
    """Measures levels over blocks of samples of any length.

    Attributes:
        sample_rate: of the samples in Hz.
        count: number of samples so far.
    """

    sample_rate: int
    count: int = 0
    _sum: float = 0.0
    _extremes: list[Float32[np.ndarray, "2 _"]] = field(default_factory=list)

    def add(self, samples: Float32[np.ndarray, " sample"]) -> None:
        """Add the next samples."""
        if not len(samples):
            return
        step = max(round(self.sample_rate * _STEP_S), 1)
        begun = self.count % step
        starts = np.arange(-begun, len(samples), step).clip(0)
        # The highest of each step, and minus the lowest.
        extremes = np.stack([np.maximum.reduceat(samples, starts), -np.minimum.reduceat(samples, starts)])
        if begun:  # the first of them belongs to the last step of the samples before
            extremes[:, 0] = np.maximum(extremes[:, 0], self._extremes[-1][:, -1])
            self._extremes[-1] = self._extremes[-1][:, :-1]
        self._extremes.append(extremes)
        self._sum += float(samples.sum(dtype=np.float64))
        self.count += len(samples)

    def levels(self) -> Levels:
        """The levels of all samples so far; 0 without samples."""
        if not self.count:
            return Levels(0, 0.0, 0.0, 0.0, np.empty(0, np.float32))
        extremes = np.concatenate(self._extremes, axis=1)
        highest, minus_lowest = extremes.max(axis=1).tolist()
        return Levels(self.count, -minus_lowest, highest, self._sum / self.count, extremes.max(axis=0))
