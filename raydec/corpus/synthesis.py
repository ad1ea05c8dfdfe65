"""A source-filter speech synthesiser whose voice depends on three hidden emotional attributes.

It models glottal pulses with jitter and shimmer, aspiration, a spectral tilt, five vowels with five
resonances each, fricatives at syllable onsets, pauses and voice breaks. It does not aim to sound human, but
to resemble the effects of emotion on a voice, so that a model can learn them. The overall level carries no
information, because features are peak-normalised per utterance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SAMPLE_RATE = 16_000
CONTROL_RATE = 200
SOUND_FLOOR = 0.03

# First three formants (Hz) of five vowels of an adult male voice; the fourth and fifth hardly move.
VOWELS_HZ = (
    (730.0, 1090.0, 2440.0),
    (530.0, 1840.0, 2480.0),
    (270.0, 2290.0, 3010.0),
    (570.0, 840.0, 2410.0),
    (300.0, 870.0, 2240.0),
)
UPPER_FORMANTS_HZ = (3500.0, 4500.0)
BANDWIDTHS_HZ = (70.0, 100.0, 140.0, 220.0, 300.0)


@dataclass(frozen=True)
class Emotion:
    """Hidden attributes of an utterance, in standard deviations from neutral."""

    arousal: float
    dominance: float
    valence: float


@dataclass(frozen=True)
class Speaker:
    """Properties that are constant over all utterances of a speaker."""

    gender: str
    pitch_hz: float
    formant_scale: float
    syllables_per_s: float
    tilt_hz: float
    jitter: float
    breathiness: float


@dataclass(frozen=True)
class Voice:
    """How one utterance is spoken: a speaker's properties, modified by an emotion."""

    pitch_hz: float
    pitch_range_octaves: float
    pitch_slope_octaves: float
    syllables_per_s: float
    pause_probability: float
    contrast_db: float
    tilt_hz: float
    open_quotient: float
    jitter: float
    shimmer: float
    breathiness: float
    breaks_per_s: float
    formant_scale: float
    smile: float


@dataclass(frozen=True)
class Score:
    """Control curves of one utterance, at ``CONTROL_RATE`` Hz."""

    times_s: Float[np.ndarray, "control"]
    loudness: Float[np.ndarray, "control"]
    friction: Float[np.ndarray, "control"]
    octaves: Float[np.ndarray, "control"]
    vowels: Float[np.ndarray, "vowel control"]


def draw_speaker(rng: np.random.Generator, gender: str) -> Speaker:
    """Draw a random speaker.

    Args:
        rng: source of randomness.
        gender: ``"Male"`` or ``"Female"``.
    """
    pitch_hz, formant_scale = (195.0, 1.16) if gender == "Female" else (120.0, 1.0)
    away = rng.uniform(-1.0, 1.0, size=6)
    return Speaker(
        gender=gender,
        pitch_hz=pitch_hz * 2.0 ** (0.12 * away[0]),
        formant_scale=formant_scale * (1.0 + 0.05 * away[1]),
        syllables_per_s=4.2 * math.exp(0.08 * away[2]),
        tilt_hz=900.0 * math.exp(0.18 * away[3]),
        jitter=0.008 * math.exp(0.3 * away[4]),
        breathiness=0.2 * math.exp(0.4 * away[5]),
    )


def voice_of(speaker: Speaker, emotion: Emotion, rng: np.random.Generator) -> Voice:
    """Modify a speaker's properties by an emotion and by random variation between utterances.

    Arousal raises pitch, rate, contrast and brightness. Dominance makes the voice pressed, and lowers
    formants and the ends of phrases. Valence has the weakest effect: a rising, livelier melody, spread lips,
    a steadier voice.
    """
    arousal, dominance, valence = emotion.arousal, emotion.dominance, emotion.valence
    chance = rng.standard_normal(14)
    return Voice(
        pitch_hz=speaker.pitch_hz * 2.0 ** (0.30 * arousal - 0.04 * dominance + 0.05 * chance[0]),
        pitch_range_octaves=0.16 * math.exp(0.25 * arousal + 0.15 * valence + 0.25 * chance[1]),
        pitch_slope_octaves=0.10 * valence - 0.10 * dominance - 0.15 + 0.10 * chance[2],
        syllables_per_s=speaker.syllables_per_s * math.exp(0.22 * arousal + 0.06 * chance[3]),
        pause_probability=min(0.10 * math.exp(-0.45 * arousal - 0.45 * dominance + 0.3 * chance[4]), 0.5),
        contrast_db=14.0 + 3.5 * arousal + 3.5 * dominance + 1.5 * chance[5],
        tilt_hz=speaker.tilt_hz * math.exp(0.55 * arousal + 0.22 * dominance + 0.12 * chance[6]),
        open_quotient=float(np.clip(0.62 - 0.03 * arousal - 0.08 * dominance + 0.03 * chance[7], 0.35, 0.9)),
        jitter=speaker.jitter * math.exp(0.20 * arousal - 0.35 * valence + 0.2 * chance[8]),
        shimmer=0.06 * math.exp(-0.30 * valence + 0.3 * chance[9]),
        breathiness=speaker.breathiness * math.exp(-0.60 * dominance - 0.1 * valence + 0.25 * chance[10]),
        breaks_per_s=0.5 * math.exp(-0.40 * valence - 0.35 * dominance + 0.3 * chance[11]),
        formant_scale=speaker.formant_scale * (1.0 - 0.02 * dominance + 0.01 * chance[12]),
        smile=1.0 + 0.04 * valence + 0.02 * chance[13],
    )


def synthesize(voice: Voice, duration_s: float, rng: np.random.Generator) -> Float[np.ndarray, "sample"]:
    """Synthesise one utterance.

    Args:
        voice: how it is spoken.
        duration_s: its length in seconds.
        rng: source of randomness for syllables, accents and noise.

    Returns:
        float64 samples at ``SAMPLE_RATE`` Hz, within +-1.
    """
    from scipy.signal import sosfilt

    num_samples = round(duration_s * SAMPLE_RATE)
    score = _compose(voice, duration_s, rng)
    times_s = np.arange(num_samples) / SAMPLE_RATE
    loudness = np.interp(times_s, score.times_s, score.loudness)
    source = loudness * _glottal_source(voice, np.interp(times_s, score.times_s, score.octaves), rng)
    speech = np.zeros(num_samples)
    for formants_hz, weight in zip(VOWELS_HZ, score.vowels, strict=True):
        if weight.any():
            filters = _resonators(formants_hz, voice)
            speech += sosfilt(filters, source * np.interp(times_s, score.times_s, weight))
    friction = np.diff(rng.standard_normal(num_samples + 1)) * np.interp(
        times_s, score.times_s, score.friction
    )
    speech += 0.1 * np.std(speech) * friction
    return _record(speech, rng)


def _compose(voice: Voice, duration_s: float, rng: np.random.Generator) -> Score:
    """Draw syllables, then the control curves over them."""
    starts_s, lengths_s = _syllables(voice, duration_s, rng)
    times_s = np.arange(math.ceil(duration_s * CONTROL_RATE) + 1) / CONTROL_RATE
    # One row per syllable: 0 at its start, 1 at its end.
    place = (times_s[None, :] - starts_s[:, None]) / lengths_s[:, None]
    bell = np.where((place > 0) & (place < 1), np.sin(np.pi * np.clip(place, 0.0, 1.0)) ** 2, 0.0)
    accents = rng.standard_normal(len(starts_s))
    peaks = 10.0 ** (voice.contrast_db * np.clip(accents, -2.0, 2.0) / 40.0)
    loudness = SOUND_FLOOR + (peaks[:, None] * bell**0.7).sum(axis=0)
    loudness *= _breaks(voice, times_s, rng)
    friction = np.where((place > 0) & (place < 0.25), 1.0, 0.0)[rng.random(len(starts_s)) < 0.5].sum(axis=0)
    melody = np.interp(times_s, starts_s + lengths_s / 2, accents + 0.5 * rng.standard_normal(len(starts_s)))
    octaves = voice.pitch_range_octaves * melody + voice.pitch_slope_octaves * (times_s / duration_s - 0.5)
    return Score(times_s, loudness, friction, octaves, _vowel_weights(times_s, starts_s, rng))


def _syllables(
    voice: Voice, duration_s: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "syllable"], Float[np.ndarray, "syllable"]]:
    """Start and length in seconds of every syllable; phrases are separated by pauses."""
    most = math.ceil(duration_s * voice.syllables_per_s * 2) + 2
    lengths_s = np.exp(0.2 * rng.standard_normal(most)) / voice.syllables_per_s
    pauses_s = np.where(rng.random(most) < voice.pause_probability, rng.uniform(0.15, 0.5, most), 0.0)
    starts_s = 0.05 + np.concatenate(([0.0], np.cumsum(lengths_s + pauses_s)[:-1]))
    kept = starts_s < max(duration_s - 0.12, 0.06)
    return starts_s[kept], lengths_s[kept]


def _breaks(
    voice: Voice, times_s: Float[np.ndarray, "control"], rng: np.random.Generator
) -> Float[np.ndarray, "control"]:
    """A loudness factor, 1 except in voice breaks, where it is near 0."""
    factor = np.ones_like(times_s)
    for _ in range(rng.poisson(voice.breaks_per_s * times_s[-1])):
        start_s, length_s = rng.uniform(0.0, times_s[-1]), rng.uniform(0.03, 0.08)
        factor[(times_s >= start_s) & (times_s < start_s + length_s)] = 0.05
    return factor


def _vowel_weights(
    times_s: Float[np.ndarray, "control"],
    starts_s: Float[np.ndarray, "syllable"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "vowel control"]:
    """Weight of each vowel over time: one vowel per syllable, with 40 ms glides between them."""
    spoken = rng.integers(len(VOWELS_HZ), size=len(starts_s))
    current = np.clip(np.searchsorted(starts_s, times_s, side="right") - 1, 0, None)
    one_hot = (spoken[current][None, :] == np.arange(len(VOWELS_HZ))[:, None]).astype(np.float64)
    glide = np.full(round(0.04 * CONTROL_RATE), 1.0 / round(0.04 * CONTROL_RATE))
    return np.stack([np.convolve(row, glide)[: len(times_s)] for row in one_hot])


def _glottal_source(
    voice: Voice, octaves: Float[np.ndarray, "sample"], rng: np.random.Generator
) -> Float[np.ndarray, "sample"]:
    """Differentiated glottal flow plus aspiration, tilted by a one-pole low-pass."""
    pitch_hz = np.clip(voice.pitch_hz * 2.0**octaves, 50.0, 600.0)
    cycle = np.cumsum(pitch_hz / SAMPLE_RATE).astype(np.int64)
    jitter = np.clip(voice.jitter * rng.standard_normal(cycle[-1] + 1), -0.2, 0.2)
    phase = np.cumsum(pitch_hz / SAMPLE_RATE * (1.0 + jitter[cycle]))
    period = phase.astype(np.int64)
    shimmer = np.clip(1.0 + voice.shimmer * rng.standard_normal(period[-1] + 1), 0.2, 2.0)
    opening = np.minimum((phase - period) / voice.open_quotient, 1.0)
    # x^2 (1 - x), a slow opening and an abrupt closure, scaled to a maximum of 1.
    flow = 6.75 * opening**2 * (1.0 - opening) * shimmer[period]
    pulses = np.diff(flow, prepend=flow[0])
    noise = voice.breathiness * np.std(pulses) * rng.standard_normal(len(flow)) * (0.3 + 0.7 * flow)
    pole = math.exp(-2.0 * math.pi * voice.tilt_hz / SAMPLE_RATE)
    return _filtered([1.0 - pole], [1.0, -pole], pulses + noise)


def _resonators(
    formants_hz: tuple[float, float, float], voice: Voice
) -> Float[np.ndarray, "resonance coefficient"]:
    """Second-order sections of a cascade of resonances with gain 1 at 0 Hz."""
    first, second, third = formants_hz
    spread = (first, second * voice.smile, third * voice.smile, *UPPER_FORMANTS_HZ)
    centres_hz = np.minimum(np.array(spread) * voice.formant_scale, 0.47 * SAMPLE_RATE)
    radius = np.exp(-np.pi * np.array(BANDWIDTHS_HZ) / SAMPLE_RATE)
    first_order = -2.0 * radius * np.cos(2.0 * np.pi * centres_hz / SAMPLE_RATE)
    zeros, ones = np.zeros_like(radius), np.ones_like(radius)
    gain = 1.0 + first_order + radius**2
    return np.stack([gain, zeros, zeros, ones, first_order, radius**2], axis=1)


def _record(speech: Float[np.ndarray, "sample"], rng: np.random.Generator) -> Float[np.ndarray, "sample"]:
    """Add a noise floor and set a level, both unrelated to the emotion, like a recording."""
    snr_db = rng.uniform(35.0, 55.0)
    hiss = _filtered([0.3], [1.0, -0.7], rng.standard_normal(len(speech)))
    recorded = speech + hiss * (np.std(speech) * 10.0 ** (-snr_db / 20.0) / np.std(hiss))
    return recorded * (rng.uniform(0.2, 0.95) / np.max(np.abs(recorded)))


def _filtered(
    numerator: list[float], denominator: list[float], samples: Float[np.ndarray, "sample"]
) -> Float[np.ndarray, "sample"]:
    # Imported here, because all readers import this module, to recognise the demo corpus.
    from scipy.signal import lfilter

    return lfilter(numerator, denominator, samples)
