"""The built-in demo corpus: synthetic utterances with labels, made offline in seconds.

Its labels are the hidden attributes that control the synthesiser, as rated by simulated annotators. With it,
every command can be tried without data. Scores on it say nothing about human speech.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from raydec.corpus.synthesis import SAMPLE_RATE, Emotion, Speaker, draw_speaker, synthesize, voice_of
from raydec.errors import UserError
from raydec.files.atomic import temporary_folder

# Increase it whenever a byte of the corpus changes, so that folders of another version are rebuilt.
DEMO_VERSION = 1
MARKER = "demo_corpus.json"
TITLE = "SYNTHETIC demo corpus made by raydec"
LABELS = Path("Labels") / "labels_consensus.csv"
HEADER = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
DURATION_LIMITS_S = (0.8, 8.0)
UNLABELED = "Unlabeled"
# Speakers per split; no speaker is in two splits.
NUM_SPEAKERS = {"Train": 24, "Validation": 8, "Test": 8, UNLABELED: 12}

README = f"""{TITLE}

Every file here was computed by a small speech synthesiser. Nobody spoke, nobody was recorded, and the
labels are simulated. It is for trying the commands and for tests; scores reached on it say nothing about
human speech.

Audios/                       labeled utterances, 16 kHz, 16 bit, mono
Labels/labels_consensus.csv   simulated consensus labels in the MSP-Podcast layout, scale 1 to 7
Unlabeled/                    utterances of other speakers, without labels
{MARKER}              what it was made with
"""


@dataclass(frozen=True)
class Utterance:
    """An utterance to be synthesised."""

    file: Path
    split: str
    speaker_id: int
    speaker: Speaker
    emotion: Emotion
    duration_s: float
    rng: np.random.Generator


def write_demo_corpus(
    folder: Path,
    *,
    seed: int = 0,
    num_train: int = 160,
    num_validation: int = 40,
    num_test: int = 60,
    num_unlabeled: int = 48,
) -> Path:
    """Write the demo corpus in the MSP-Podcast layout, unless it exists already.

    A complete corpus made with the same arguments is kept; an incomplete or different demo corpus is
    replaced. The same arguments give the same bytes.

    Args:
        folder: where to write; it must be new, empty, or a demo corpus.
        seed: seed of everything random.
        num_train: labeled training utterances.
        num_validation: labeled validation utterances.
        num_test: labeled test utterances.
        num_unlabeled: utterances without labels, under ``Unlabeled/``.

    Returns:
        ``folder``, absolute.

    Raises:
        UserError: a number is negative, or the folder has other content or cannot be written.
    """
    folder = Path(folder).resolve()
    sizes = {"Train": num_train, "Validation": num_validation, "Test": num_test, UNLABELED: num_unlabeled}
    for split, size in sizes.items():
        if size < 0:
            raise UserError(f"demo corpus: {size} utterances for {split}; give 0 or more")
    made_with = {"version": DEMO_VERSION, "seed": seed, "sizes": sizes}
    if _is_complete(folder, made_with):
        return folder
    _refuse_foreign(folder)
    try:
        _build(folder, made_with, plan_utterances(seed, sizes))
    except OSError as error:
        raise UserError(f"cannot write the demo corpus to {folder}: {error.strerror or error}") from None
    return folder


def is_demo_corpus(folder: Path) -> bool:
    """Whether a folder contains the synthetic demo corpus, complete or not."""
    if (folder / MARKER).is_file():
        return True
    try:
        with open(folder / "README.txt", encoding="utf-8", errors="replace") as file:
            return file.readline().strip() == TITLE
    except OSError:
        return False


def plan_utterances(seed: int, sizes: dict[str, int]) -> Iterator[Utterance]:
    """Draw speaker, emotion and duration of every utterance, without synthesising it.

    Every utterance has its own generator, so its bytes do not depend on the number of others.

    Args:
        seed: seed of everything random.
        sizes: utterances per split.
    """
    first_speaker = 1
    for split_index, (split, num_speakers) in enumerate(NUM_SPEAKERS.items()):
        speakers = [
            draw_speaker(np.random.default_rng([seed, 0, split_index, place]), ("Female", "Male")[place % 2])
            for place in range(num_speakers)
        ]
        for index in range(sizes[split]):
            place, turn = index % num_speakers, index // num_speakers
            rng = np.random.default_rng([seed, 1, split_index, index])
            speaker_id = first_speaker + place
            subfolder = UNLABELED if split == UNLABELED else "Audios"
            file = Path(subfolder) / f"DEMO_{speaker_id:04d}_{turn + 1:04d}.wav"
            emotion, duration_s = _draw_emotion(rng), _draw_duration(rng)
            yield Utterance(file, split, speaker_id, speakers[place], emotion, duration_s, rng)
        first_speaker += num_speakers


def _draw_emotion(rng: np.random.Generator) -> Emotion:
    """Hidden attributes; dominance correlates with arousal (0.6), valence weakly with both (0.1, 0.26)."""
    first, second, third = (float(value) for value in np.clip(rng.standard_normal(3), -2.5, 2.5))
    return Emotion(
        arousal=first,
        dominance=0.6 * first + 0.8 * second,
        valence=0.1 * first + 0.25 * second + 0.963 * third,
    )


def _draw_duration(rng: np.random.Generator) -> float:
    """Duration in seconds; most utterances last two to four."""
    return float(np.clip(2.6 * np.exp(0.45 * rng.standard_normal()), *DURATION_LIMITS_S))


def _annotate(emotion: Emotion, rng: np.random.Generator) -> dict[str, float]:
    """Consensus of five to eight annotators: the mean of their whole-number ratings from 1 to 7."""
    num_annotators = int(rng.integers(5, 9))
    hidden = np.array([emotion.arousal, emotion.dominance, emotion.valence])
    bias = 0.3 * rng.standard_normal((num_annotators, 1))
    opinions = 4.0 + 1.2 * hidden + bias + 0.8 * rng.standard_normal((num_annotators, 3))
    means = np.clip(np.rint(opinions), 1.0, 7.0).mean(axis=0)
    arousal, dominance, valence = (round(float(mean), 6) for mean in means)
    return {"arousal": arousal, "dominance": dominance, "valence": valence}


def _emotion_class(labels: dict[str, float]) -> str:
    """The MSP-Podcast letter of a quadrant; neutral near the middle and for a quadrant without a class."""
    arousal, valence = labels["arousal"] - 4.0, labels["valence"] - 4.0
    if np.hypot(arousal, valence) < 0.8:
        return "N"
    if valence < 0:
        high = "A" if labels["dominance"] >= 4.0 else "F"
        return high if arousal >= 0 else "S"
    return "H" if arousal >= 0 else "N"


def _build(folder: Path, made_with: dict[str, Any], utterances: Iterable[Utterance]) -> None:
    """Write beside the folder, then rename, so that a partial corpus is never visible."""
    with temporary_folder(folder) as part:
        _write(part, made_with, utterances)
        _move_into_place(part, folder, made_with)


def _write(folder: Path, made_with: dict[str, Any], utterances: Iterable[Utterance]) -> None:
    for subfolder in ("Audios", "Labels", UNLABELED):
        (folder / subfolder).mkdir()
    rows = []
    for utterance in utterances:
        # Labels first, because they must not depend on how many numbers the synthesiser draws.
        labels = _annotate(utterance.emotion, utterance.rng)
        voice = voice_of(utterance.speaker, utterance.emotion, utterance.rng)
        _write_wav(folder / utterance.file, synthesize(voice, utterance.duration_s, utterance.rng))
        if utterance.split != UNLABELED:
            rows.append(_label_row(utterance, labels))
    with open(folder / LABELS, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(sorted(rows))
    (folder / "README.txt").write_text(README, encoding="utf-8", newline="\n")
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    marker = json.dumps({**made_with, "synthetic": True, "files": sizes}, indent=1)
    (folder / MARKER).write_text(marker + "\n", encoding="utf-8", newline="\n")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _label_row(utterance: Utterance, labels: dict[str, float]) -> tuple[str, ...]:
    return (
        utterance.file.name,
        _emotion_class(labels),
        str(labels["arousal"]),
        str(labels["valence"]),
        str(labels["dominance"]),
        str(utterance.speaker_id),
        utterance.speaker.gender,
        utterance.split,
    )


def _write_wav(path: Path, samples: Float[np.ndarray, "sample"]) -> None:
    """Write 16-bit PCM with the standard library, whose header is the same on every platform."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.rint(samples * 32767.0).astype("<i2").tobytes())


def _is_complete(folder: Path, made_with: dict[str, Any]) -> bool:
    """Whether the folder holds every file of a corpus made with these arguments."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if {key: marker[key] for key in made_with} != made_with:
            return False
        return all(os.stat(folder / name).st_size == size for name, size in marker["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _refuse_foreign(folder: Path) -> None:
    """Refuse to replace files that raydec did not write."""
    if folder.is_dir() and not is_demo_corpus(folder) and any(folder.iterdir()):
        raise UserError(f"{folder} contains files that are not a demo corpus; name a new or an empty folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the demo corpus")


def _move_into_place(part: Path, folder: Path, made_with: dict[str, Any]) -> None:
    """Replace the folder with the finished corpus, unless another process has already done so."""
    if _is_complete(folder, made_with):
        return
    if folder.exists():
        shutil.rmtree(folder)
    try:
        os.rename(part, folder)
    except OSError:
        if not _is_complete(folder, made_with):
            raise
