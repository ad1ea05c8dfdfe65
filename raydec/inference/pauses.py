"""Find speech in a recording: the stretches between pauses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32

from raydec.features.audio import Recording
from raydec.inference.voice_activity import vad_segments

# A pause is quieter than the loud parts by this many dB, or exceeds the quiet parts by at most this share of
# the range between quiet and loud parts.
_BELOW_LOUD_DB, _SHARE_OF_RANGE = 35.0, 0.35
# If loud and quiet parts differ by less than this, there are no pauses.
_MIN_RANGE_DB = 12.0
_MIN_PAUSE_S, _MIN_SPEECH_S, _MARGIN_S = 0.3, 0.1, 0.1


def energy_segments(recording: Recording) -> list[tuple[float, float]]:
    """Stretches that are louder than the recording's pauses, as seconds from its beginning.

    A pause lasts at least 0.3 s and is 35 dB quieter than the loud parts (the 95th percentile of 10 ms
    peaks), or near the level of the quiet parts (the 10th) where there is noise. Bursts shorter than 0.1 s
    are not speech. Each stretch keeps 0.1 s of the pauses around it.
    """
    duration_s = recording.levels.num_samples / recording.sample_rate
    step_s = round(0.01 * recording.sample_rate) / recording.sample_rate
    return _padded(_runs(_is_loud(recording.levels.step_peaks), step_s), duration_s)


def _is_loud(peaks: Float32[np.ndarray, " step"]) -> Bool[np.ndarray, " step"]:
    levels_db = 20 * np.log10(np.maximum(peaks, 1e-9))
    quiet_db, loud_db = np.quantile(levels_db, [0.1, 0.95])
    if loud_db - quiet_db < _MIN_RANGE_DB:
        return np.ones(len(peaks), bool)
    threshold_db = max(loud_db - _BELOW_LOUD_DB, quiet_db + _SHARE_OF_RANGE * (loud_db - quiet_db))
    return levels_db > threshold_db


def _runs(is_loud: Bool[np.ndarray, " step"], step_s: float) -> Float[np.ndarray, "stretch 2"]:
    """Loud stretches in seconds, without gaps shorter than a pause and bursts too short for speech."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_loud, [False]])))
    runs = edges.reshape(-1, 2) * step_s
    if not len(runs):
        return runs
    is_pause = runs[1:, 0] - runs[:-1, 1] >= _MIN_PAUSE_S - step_s / 2
    begins = runs[np.concatenate([[True], is_pause]), 0]
    ends = runs[np.concatenate([is_pause, [True]]), 1]
    joined = np.stack([begins, ends], axis=1)
    return joined[joined[:, 1] - joined[:, 0] >= _MIN_SPEECH_S - step_s / 2]


def _padded(runs: Float[np.ndarray, "stretch 2"], duration_s: float) -> list[tuple[float, float]]:
    """With a margin on both sides, limited to the recording."""
    begins, ends = np.maximum(runs[:, 0] - _MARGIN_S, 0), np.minimum(runs[:, 1] + _MARGIN_S, duration_s)
    return [(round(float(begin), 3), round(float(end), 3)) for begin, end in zip(begins, ends, strict=True)]


def voice_segments(recording: Recording) -> list[tuple[float, float]]:
    """Stretches of speech by :func:`raydec.inference.voice_activity.vad_segments`, cut at the same pauses.

    Raises:
        UserError: the detector is not installed.
    """
    return vad_segments(recording, min_pause_s=_MIN_PAUSE_S, min_speech_s=_MIN_SPEECH_S, margin_s=_MARGIN_S)


SPEECH_FINDERS: dict[str, Callable[[Recording], list[tuple[float, float]]]] = {
    "energy": energy_segments,
    "vad": voice_segments,
}
"""Ways to find speech, by the name that ``--segments`` takes."""
