"""All chunks of some utterances of a feature store, gathered by number.

A chunk is an offset into the memory map: no frame is held twice, and the memory of a set grows with its
utterances, not with their length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from raydec.features.chunking import CHUNK_FRAMES, NUM_CHUNKS, chunk_starts
from raydec.features.mel import FrameNormalizer
from raydec.features.store import FeatureStore


class ChunkSet:
    """Chunks of some utterances, in order: chunk ``i`` of utterance ``u`` is number ``u * num_chunks + i``.

    Attributes:
        store: where the frames are.
        rows: the store's row of each utterance.
        normalizer: applied to every gathered chunk.
        num_utterances: utterances in this set.
        num_chunks: chunks per utterance.
        chunk_frames: frames per chunk.
    """

    def __init__(
        self,
        store: FeatureStore,
        rows: Int64[np.ndarray, " utterance"],
        normalizer: FrameNormalizer,
        num_chunks: int = NUM_CHUNKS,
        chunk_frames: int = CHUNK_FRAMES,
    ) -> None:
        self.store = store
        self.rows = rows
        self.normalizer = normalizer
        self.num_utterances = len(rows)
        self.num_chunks = num_chunks
        self.chunk_frames = chunk_frames
        self._table = store.utterances.take(rows)
        self._num_frames = self._table["num_frames"].to_numpy().astype(np.int64)
        self._first_frame = self._table["first_frame"].to_numpy()
        self._shard = self._table["shard"].to_numpy()

    def __len__(self) -> int:
        """Number of chunks."""
        return self.num_utterances * self.num_chunks

    def gather(
        self, chunk_indices: Int64[np.ndarray, " chunk"], device: torch.device | str | None = None
    ) -> Float32[Tensor, "chunk frame mel"]:
        """Normalised chunks, in the order asked for; utterances shorter than a chunk are repeated.

        The float16 frames go to ``device`` as they are, and are normalised there.

        Raises:
            IndexError: a chunk number outside ``range(len(self))``.
        """
        target = torch.device(device or "cpu")
        shape = (len(chunk_indices), self.chunk_frames, self.store.parameters.n_mels)
        gathered = torch.empty(shape, dtype=torch.float16, pin_memory=target.type == "cuda")
        self._copy_frames(chunk_indices, gathered.numpy())
        return self.normalizer.normalize(gathered.to(target, non_blocking=True))

    def utterance_of(self, chunk_indices: Int64[np.ndarray, " chunk"]) -> Int64[np.ndarray, " chunk"]:
        """The place in this set (not the store's row) of the utterance each chunk belongs to."""
        return chunk_indices // self.num_chunks

    def labels(self, attributes: Sequence[str]) -> Float64[np.ndarray, "utterance attribute"]:
        """Labels in the corpus's scale; NaN where an utterance has none."""
        columns = [self._table[attribute].to_numpy() for attribute in attributes]
        return np.stack(columns, axis=1).astype(np.float64)

    def speakers(self) -> list[str | None]:
        """Speaker of each utterance; None where unknown."""
        return self._table["speaker"].to_pylist()

    def _copy_frames(self, chunk_indices: np.ndarray, out: np.ndarray) -> None:
        if len(chunk_indices) and not 0 <= chunk_indices.min() <= chunk_indices.max() < len(self):
            raise IndexError(f"chunk numbers must be from 0 to {len(self) - 1}")
        utterances, places = np.divmod(chunk_indices, self.num_chunks)
        num_frames = self._num_frames[utterances]
        starts = chunk_starts(num_frames, self.num_chunks, self.chunk_frames)
        first_frames = self._first_frame[utterances] + starts[np.arange(len(places)), places]
        # Plain integers: this loop runs once per chunk, and numpy scalars would cost more than the copy.
        wanted = zip(
            self._shard[utterances].tolist(), first_frames.tolist(), num_frames.tolist(), strict=True
        )
        length = self.chunk_frames
        for chunk, (shard, first, available) in enumerate(wanted):
            frames = self.store.shard_frames(shard)
            if available >= length:
                out[chunk] = frames[first : first + length]
            else:
                out[chunk] = frames[first + np.arange(length) % available]
