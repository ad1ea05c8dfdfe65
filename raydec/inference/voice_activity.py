"""Find speech in a recording by a neural voice activity detector: Silero VAD, extra ``vad``."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from raydec.errors import UserError
from raydec.features.audio import Recording, soxr_resampler

_RATE_HZ, _WINDOW = 16_000, 512
"""What the detector takes: windows of 32 ms, one after the other."""


def require_detector() -> None:
    """Check that the detector is installed.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("silero_vad") is None:
        raise UserError('--segments vad needs silero-vad; install with: pip install "raydec[vad]"')


def vad_segments(
    recording: Recording, *, min_pause_s: float, min_speech_s: float, margin_s: float
) -> list[tuple[float, float]]:
    """Stretches that the detector takes for speech, as seconds from the beginning of the recording.

    The recording is read in blocks, scaled to a peak of 1, so that its level does not matter.

    Args:
        recording: any length and sample rate.
        min_pause_s: shorter pauses do not cut.
        min_speech_s: shorter stretches are not speech.
        margin_s: what each stretch keeps of the pauses around it.

    Raises:
        UserError: the detector is not installed.
    """
    package, model = _detector()
    model.reset_states()
    scores, num_samples = [], 0
    with torch.inference_mode():
        for window in _windows(recording):
            num_samples += len(window)
            padded = np.pad(window, (0, _WINDOW - len(window)))
            scores.append(model(torch.from_numpy(padded), _RATE_HZ).item())
    found = package.get_speech_timestamps_from_probs(
        scores,
        sampling_rate=_RATE_HZ,
        min_silence_duration_ms=round(1000 * min_pause_s),
        min_speech_duration_ms=round(1000 * min_speech_s),
        speech_pad_ms=round(1000 * margin_s),
        audio_length_samples=num_samples,
    )
    return [(round(each["start"] / _RATE_HZ, 3), round(each["end"] / _RATE_HZ, 3)) for each in found]


@functools.cache
def _detector() -> tuple[Any, Any]:
    """The package, and its network."""
    require_detector()
    num_threads = torch.get_num_threads()
    import silero_vad

    torch.set_num_threads(num_threads)  # importing it sets one thread
    with warnings.catch_warnings():
        # Its network is a TorchScript file, which torch 2.11 reads, with a warning.
        warnings.simplefilter("ignore", DeprecationWarning)
        return silero_vad, silero_vad.load_silero_vad()


def _windows(recording: Recording) -> Iterator[Float32[np.ndarray, " sample"]]:
    """The recording at the detector's rate, in windows of equal length but for the last."""
    rest = np.empty(0, np.float32)
    for block in _blocks(recording):
        samples = np.concatenate([rest, block])
        whole = len(samples) - len(samples) % _WINDOW
        yield from samples[:whole].reshape(-1, _WINDOW)
        rest = samples[whole:]
    if len(rest):
        yield rest


def _blocks(recording: Recording) -> Iterator[Float32[np.ndarray, " sample"]]:
    scale = np.float32(1 / recording.levels.peak)
    if recording.sample_rate == _RATE_HZ:
        yield from (block * scale for block in recording.blocks())
        return
    resampler = soxr_resampler(recording.sample_rate, _RATE_HZ)
    for block in recording.blocks():
        yield resampler.resample_chunk(block * scale)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
