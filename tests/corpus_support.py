"""Small corpora for tests: voice-like noise in WAV files, and the table that describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from raydec.corpus.table import Corpus, table_from_columns, validate_table
from raydec.features.front_end import ChunkFormat
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.shards import plan_shards, write_shard
from raydec.features.store import FeatureStore
from raydec.features.store_writer import finish_store, open_folder


@dataclass(frozen=True)
class Spoken:
    """One utterance to be made up."""

    name: str
    split: str = "train"
    seconds: float = 0.3
    arousal: float | None = 4.0
    valence: float | None = None
    speaker: str | None = "s1"
    seed: int | None = None


def voice(seed: int, seconds: float, sample_rate: int = 16_000) -> np.ndarray:
    """A buzz with a moving pitch in noise: float32, peak below 0.9."""
    random = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * sample_rate)) / sample_rate
    pitch_hz = 120 + 60 * random.random() + 20 * np.sin(2 * np.pi * 3 * time_s)
    buzz = sum(np.sin(2 * np.pi * k * np.cumsum(pitch_hz) / sample_rate) / k for k in range(1, 12))
    loud = 0.2 * buzz + 0.02 * random.standard_normal(len(time_s))
    return np.clip(loud, -0.9, 0.9).astype(np.float32)


def write_corpus(folder: Path, utterances: Sequence[Spoken], name: str = "tiny") -> Corpus:
    """Write the audio files of utterances and describe them, as a corpus reader would."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, spoken in enumerate(utterances):
        path = folder / spoken.name
        if not path.exists():
            seed = number if spoken.seed is None else spoken.seed
            soundfile.write(path, voice(seed, spoken.seconds), 16_000, subtype="PCM_16")
    columns = {
        "utterance_id": [spoken.name for spoken in utterances],
        "path": [str(folder / spoken.name) for spoken in utterances],
        "speaker": [spoken.speaker for spoken in utterances],
        "split": [spoken.split for spoken in utterances],
        "arousal": [spoken.arousal for spoken in utterances],
        "valence": [spoken.valence for spoken in utterances],
    }
    return Corpus(name, validate_table(table_from_columns(columns)), (), (), "manifest")


def mel_format(**changes: Any) -> ChunkFormat:
    """The published chunk format, with changes."""
    return replace(MelFrontEnd().usual_format, **changes)


def make_store(corpus: Corpus, folder: Path) -> FeatureStore:
    """Prepare a corpus in this process, without any entry point."""
    front_end = MelFrontEnd()
    open_folder(folder)
    plans = plan_shards(corpus.table)
    for plan in plans:
        write_shard(plan, folder, front_end)
    finish_store(folder, corpus, plans, front_end)
    return FeatureStore.open(folder)


def many(count: int, split: str = "train", prefix: str = "u", **changes: object) -> list[Spoken]:
    """Utterances of growing length with labels that differ."""
    return [
        Spoken(
            f"{prefix}{number:03d}.wav",
            split,
            seconds=0.2 + 0.05 * (number % 9),
            arousal=1.0 + number % 7,
            seed=hash_of(prefix, number),
            **changes,  # type: ignore[arg-type]
        )
        for number in range(count)
    ]


def hash_of(prefix: str, number: int) -> int:
    """A seed that differs between prefixes and numbers, and not between runs."""
    return sum(prefix.encode()) * 1000 + number
