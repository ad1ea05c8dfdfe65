"""The resampler the published scores were computed with: a sinc under a Kaiser window, 50 zero crossings.

raydec itself resamples by soxr. The published network hears the difference between two good resamplers (one
44.1 kHz recording moves by 0.12 in valence), so models converted from it bring their resampler along.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
from jaxtyping import Float32

from raydec.features.audio import load_audio

# The parameters known as "kaiser_best", of resampy since 0.4.
_NUM_ZEROS = 50
_BETA = 12.984585247040012
_ROLLOFF = 0.9173471685018284


def load_audio_kaiser(path: str | Path, sample_rate: int) -> Float32[np.ndarray, " sample"]:
    """As :func:`raydec.features.audio.load_audio`, resampled by :func:`resample_kaiser`.

    Raises:
        AudioError: as :func:`raydec.features.audio.load_audio`.
    """
    try:
        native_rate = soundfile.info(str(path)).samplerate
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError):
        native_rate = sample_rate  # load_audio knows how to say what is wrong
    return resample_kaiser(load_audio(path, native_rate), native_rate, sample_rate)


def resample_kaiser(
    samples: Float32[np.ndarray, " sample"], rate_in: int, rate: int
) -> Float32[np.ndarray, " resampled"]:
    """Band-limited interpolation at ``rate`` Hz of samples at ``rate_in`` Hz."""
    if rate_in == rate:
        return samples
    common = math.gcd(rate_in, rate)
    up, down = rate // common, rate_in // common
    # The filter at the rate that both rates divide; its zero crossings are those of the lower rate.
    spacing = max(up, down)
    half = _NUM_ZEROS * spacing
    zeros = np.arange(-half, half + 1) / spacing
    taps = _ROLLOFF * np.sinc(_ROLLOFF * zeros) * np.kaiser(2 * half + 1, _BETA)
    # resample_poly multiplies a given filter by `up`; at unit gain the taps sum to `spacing`.
    resampled = scipy.signal.resample_poly(samples.astype(np.float64), up, down, window=taps / spacing)
    return resampled.astype(np.float32)
