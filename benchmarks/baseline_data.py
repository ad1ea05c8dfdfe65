"""A reimplementation of the published data path: one file per utterance, read and cut for every drawn chunk.

The comparison is fair: frames are float32 ``.npy`` files, which load faster than the original MATLAB files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from raydec.features.store import FeatureStore

NUM_CHUNKS, CHUNK_FRAMES = 11, 62


def write_utterance_files(store: FeatureStore, folder: Path) -> list[Path]:
    """One file of mel power per utterance, in the order of the store's rows."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{row:06d}.npy" for row in range(len(store))]
    for row, path in enumerate(paths):
        if not path.exists():
            np.save(path, np.asarray(store.frames(row), np.float32))
    return paths


class UtteranceFiles(Dataset):
    """Chunks by number; each access reads, normalises and cuts its whole utterance.

    Args:
        paths: one file per utterance.
        mean: mean of each band.
        std: standard deviation of each band.
    """

    def __init__(self, paths: list[Path], mean: np.ndarray, std: np.ndarray) -> None:
        self._paths, self._mean, self._std = paths, mean, std

    def __len__(self) -> int:
        """Chunks."""
        return len(self._paths) * NUM_CHUNKS

    def __getitem__(self, chunk: int) -> torch.Tensor:
        """One normalised chunk, float32 ``[frame, mel]``."""
        utterance, place = divmod(int(chunk), NUM_CHUNKS)
        frames = np.load(self._paths[utterance])
        if (
            len(frames) < CHUNK_FRAMES
        ):  # the original crashes on the shortest utterances; here they are repeated, as in raydec
            frames = np.resize(frames, (CHUNK_FRAMES, frames.shape[1]))
        frames = np.clip(np.nan_to_num((frames - self._mean) / self._std), -3, 3)
        step = (len(frames) - CHUNK_FRAMES) // (NUM_CHUNKS - 1)
        chunks = [frames[i * step : i * step + CHUNK_FRAMES] for i in range(NUM_CHUNKS)]
        return torch.from_numpy(np.ascontiguousarray(chunks[place]))


def batches_of(
    files: UtteranceFiles, order: np.ndarray, batch_size: int, num_workers: int, device: torch.device
) -> DataLoader:
    """Chunks in the given order, loaded by worker processes as the original's loader does."""
    return DataLoader(
        files,
        batch_size=batch_size,
        sampler=order.tolist(),
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
