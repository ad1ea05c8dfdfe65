"""Mean features of speakers: what all utterances of a speaker have in common, apart from their emotions.

With ``features.speaker_normalization=mean`` a speaker's mean is subtracted from the frames of the speaker's
utterances. Labels are not used, so unlabeled utterances make the means more accurate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float32, Float64, Int64

from raydec.features.frame_moments import FrameMoments
from raydec.features.front_end import Scale
from raydec.features.store import FeatureStore

Means = Mapping[str, Float64[np.ndarray, " width"]]
"""Mean of each speaker's frames, on the scale on which features are normalised."""

_known: WeakKeyDictionary[FeatureStore, dict[tuple[str, Scale], dict[str, np.ndarray]]] = WeakKeyDictionary()


def speaker_means(store: FeatureStore, rows: Int64[np.ndarray, " utterance"], scale: Scale) -> Means:
    """The mean of each known speaker over some utterances, each of which counts the same.

    This reads the frames of all of them, about a minute per hundred hours of speech.
    """
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for row, speaker in zip(rows, store.utterances["speaker"].take(rows).to_pylist(), strict=True):
        if speaker is not None:
            mean = FrameMoments.of(store.frames(row), (scale,)).mean[0]
            sums[speaker] = sums.get(speaker, 0.0) + mean
            counts[speaker] = counts.get(speaker, 0) + 1
    return {speaker: total / counts[speaker] for speaker, total in sums.items()}


def means_of_split(store: FeatureStore, split: str, scale: Scale) -> Means:
    """The mean of each speaker over all utterances of a split, labeled or not; computed once per store."""
    known = _known.setdefault(store, {})
    if (split, scale) not in known:
        known[split, scale] = dict(speaker_means(store, store.rows(split), scale))
    return known[split, scale]


@dataclass(frozen=True, eq=False)
class SpeakerOffsets:
    """What is subtracted from the frames of each utterance.

    Attributes:
        values: one row per speaker: the mean minus that of the training frames; the last row is 0.
        speaker: row of each utterance; the last one if its speaker is unknown.
    """

    values: Float32[np.ndarray, "speaker width"]
    speaker: Int64[np.ndarray, " utterance"]

    def at(self, utterances: Int64[np.ndarray, " chunk"]) -> Float32[np.ndarray, "chunk 1 width"]:
        """The offsets of the utterances at some places."""
        return self.values[self.speaker[utterances]][:, None]


def offsets_of(
    store: FeatureStore,
    rows: Int64[np.ndarray, " utterance"],
    scale: Scale,
    center: Float32[np.ndarray, " width"],
    means: Means | None = None,
) -> SpeakerOffsets:
    """The offsets of some utterances of a store.

    Args:
        store: the feature store.
        rows: of the utterances.
        scale: on which features are normalised.
        center: mean of the training frames; an utterance whose speaker has no mean is not moved.
        means: of the speakers; default: those of an utterance's own split.
    """
    table = store.utterances.select(["split", "speaker"]).take(rows)
    utterances = list(zip(table["split"].to_pylist(), table["speaker"].to_pylist(), strict=True))
    # Only for speakers that occur, because evaluation requests a few utterances at a time.
    values: dict[tuple[str, str | None], np.ndarray] = {}
    for split, speaker in dict.fromkeys(utterances):
        known = means_of_split(store, split, scale) if means is None else means
        if speaker in known:
            values[split, speaker] = known[speaker] - center
    place = {key: number for number, key in enumerate(values)}
    speaker_of = [place.get(key, len(values)) for key in utterances]
    return SpeakerOffsets(
        np.stack([*values.values(), np.zeros(len(center))]).astype(np.float32), np.array(speaker_of, np.int64)
    )


def std_within_speakers(
    store: FeatureStore,
    rows: Int64[np.ndarray, " utterance"],
    scale: Scale,
    means: Means,
    center: Float32[np.ndarray, " width"],
) -> Float32[np.ndarray, " width"]:
    """Root mean square distance of the frames of some utterances from the means of their speakers.

    Where a speaker has no mean, it is the distance from ``center``.
    """
    squares, count = np.zeros(len(center)), 0
    for row, speaker in zip(rows, store.utterances["speaker"].take(rows).to_pylist(), strict=True):
        found = FrameMoments.of(store.frames(row), (scale,))
        shift = found.mean[0] - means.get(speaker, center)
        squares += found.squares[0] + found.count * shift**2
        count += found.count
    return np.sqrt(squares / max(count, 1)).astype(np.float32)
