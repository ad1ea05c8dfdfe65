"""Makes an artificial feature store of any size: ``python -m benchmarks.made_store SOURCE TARGET``.

SOURCE is a small finished store whose statistics, schema and frames are reused. The default numbers are those
of MSP-Podcast v1.6 with 40,000 unlabeled utterances, of 2.75 to 11 s. Frames are segments of SOURCE's frames
whose loudness depends on the arousal label, so that there is something to learn. Encoder features are whole
utterances of SOURCE, shifted by the label and with noise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.report import argument_parser
from raydec.features.shards import write_frames
from raydec.features.store import FeatureStore
from raydec.files.atomic import file_sha256, write_arrow

FRAMES_PER_SECOND = 62.5
PER_SHARD = 512
RELEASE_1_6 = {"train": 34_280, "validation": 5_958, "test": 10_124, "unlabeled": 40_000}


def make_store(source: Path, target: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write a store of ``counts`` utterances by split; an existing store is reused."""
    if (target / "store.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    store = FeatureStore.open(source)
    content = json.loads((source / "store.json").read_text())
    splits = np.repeat(list(counts), list(counts.values())).tolist()
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    shards = []
    for number, first in enumerate(range(0, len(splits), PER_SHARD)):
        made = list(made_utterances(store, splits[first : first + PER_SHARD], first, number, rng))
        rows += [row for row, _ in made]
        name = f"frames-{number:05d}.arrow"
        raw = target / "frames.raw"
        frames = np.concatenate([part for _, part in made])
        frames.tofile(raw)
        offset = write_frames(raw, target / name, frames.shape[1])
        raw.unlink()
        checksum = file_sha256(target / name)
        shards.append({"file": name, "num_frames": len(frames), "data_offset": offset, "sha256": checksum})
    (batch,) = pa.Table.from_pylist(rows, store.utterances.schema).combine_chunks().to_batches()
    write_arrow(target / "utterances.arrow", batch)
    content |= {"shards": shards}
    content["utterances"]["sha256"] = file_sha256(target / "utterances.arrow")
    (target / "store.json").write_text(json.dumps(content))
    return target


def made_utterances(
    store: FeatureStore, splits: list[str], first: int, shard: int, rng: np.random.Generator
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Rows and frames of one shard."""
    example = store.utterances.slice(0, 1).to_pylist()[0]
    position = 0
    for number, split in enumerate(splits, start=first):
        seconds = rng.uniform(2.75, 11)
        known = np.asarray(store.frames(int(rng.integers(len(store)))), np.float32)
        labels = rng.uniform(2, 6, size=3)
        frames = made_frames(known, seconds, labels[0], store.front_end.name == "mel", rng)
        length = len(frames)
        shown = [None] * 3 if split == "unlabeled" else labels.tolist()
        row = example | dict(zip(("arousal", "dominance", "valence"), shown, strict=True))
        row |= {
            "utterance_id": f"made-{number:06d}",
            "split": split,
            "duration_s": seconds,
            "num_frames": length,
            "shard": shard,
            "first_frame": position,
        }
        position += length
        yield row, frames


def made_frames(
    known: np.ndarray, seconds: float, arousal: float, is_mel: bool, rng: np.random.Generator
) -> np.ndarray:
    """Frames of one utterance, float16 ``[frame, width]``, that show its arousal."""
    if not is_mel:
        noise = rng.standard_normal(known.shape[1], np.float32)
        return (known + 0.1 * (arousal - 4) + 0.2 * noise).astype(np.float16)
    length = int(seconds * FRAMES_PER_SECOND)
    loudness = np.exp(0.4 * (arousal - 4) + 0.2 * rng.standard_normal((length, 1)))
    return (np.resize(known, (length, known.shape[1])) * loudness).clip(0, 6e4).astype(np.float16)


def main() -> None:
    """Make a store."""
    parser = argument_parser(__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    for split, number in RELEASE_1_6.items():
        parser.add_argument(f"--{split}", type=int, default=number)
    options = parser.parse_args()
    print(
        make_store(options.source, options.target, {split: getattr(options, split) for split in RELEASE_1_6})
    )


if __name__ == "__main__":
    main()
