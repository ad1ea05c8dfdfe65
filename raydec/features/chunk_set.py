"""The chunks of a set of utterances of a feature store, gathered by number.

A chunk is an offset into the memory map, so no frame is stored twice, and the memory of a set depends on the
number of its utterances, not on their length. Only :meth:`ChunkSet.hold_on` copies frames to a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float16, Float32, Float64, Int64
from torch import Tensor

from raydec.features.chunking import chunk_starts, wrapped
from raydec.features.front_end import ChunkFormat
from raydec.features.normalization import FrameNormalizer
from raydec.features.speaker_means import Means, SpeakerOffsets, offsets_of
from raydec.features.store import FeatureStore

# Limits the host memory for copying a set to a device.
_UTTERANCES_PER_COPY = 256


def normalizer_of(store: FeatureStore, form: ChunkFormat) -> FrameNormalizer:
    """Z-normalisation with the statistics of a store's labeled training frames on the format's scale."""
    return FrameNormalizer(*store.frame_statistics(form.scale), form.scale, form.clip)


@dataclass(frozen=True, eq=False)
class _HeldFrames:
    """Concatenated frames of all utterances of a set, and the first frame of each utterance."""

    frames: Float16[Tensor, "frame width"]
    first_frame: Int64[np.ndarray, " utterance"]

    def is_on(self, device: torch.device) -> bool:
        held = self.frames.device
        return held.type == device.type and device.index in (None, held.index)


class ChunkSet:
    """Chunks of a set of utterances; chunk ``i`` of utterance ``u`` has number ``u * num_chunks + i``.

    Attributes:
        store: where the frames are.
        rows: the store's row of each utterance.
        normalizer: applied to every gathered chunk.
        form: the chunk geometry.
        offsets: means of speakers to subtract; None if ``form`` does not use them.
        num_utterances: utterances in this set.
        num_chunks: chunks per utterance.
    """

    def __init__(
        self,
        store: FeatureStore,
        rows: Int64[np.ndarray, " utterance"],
        normalizer: FrameNormalizer,
        form: ChunkFormat,
        means: Means | None = None,
    ) -> None:
        """See the class.

        Args:
            store: where the frames are.
            rows: the store's row of each utterance.
            normalizer: applied to every gathered chunk.
            form: the chunk geometry.
            means: means of speakers, if ``form`` uses them; default: over the split of each utterance.
        """
        self.store = store
        self.rows = rows
        self.normalizer = normalizer
        self.num_utterances = len(rows)
        self.form = form
        self.num_chunks = form.num_chunks
        self._table = store.utterances.take(rows)
        self._num_frames = self._table["num_frames"].to_numpy().astype(np.int64)
        self._first_frame = self._table["first_frame"].to_numpy()
        self._shard = self._table["shard"].to_numpy()
        self._held: _HeldFrames | None = None
        self._means = means
        self.offsets: SpeakerOffsets | None = None
        if form.speaker_normalization == "mean":
            self.offsets = offsets_of(store, rows, form.scale, normalizer.mean, means)
        # Mapped here, not on first use: small long-lived objects between large temporary ones fragment the
        # heap of glibc, by about a megabyte per shard.
        for shard in np.unique(self._shard):
            store.shard_frames(int(shard))

    def __len__(self) -> int:
        """Number of chunks."""
        return self.num_utterances * self.num_chunks

    def gather(
        self, chunk_indices: Int64[np.ndarray, " chunk"], device: torch.device | str | None = None
    ) -> Float32[Tensor, "chunk frame width"]:
        """Normalised chunks in the given order; utterances shorter than a chunk are repeated.

        The float16 frames are copied to ``device`` and normalised there.

        Raises:
            IndexError: a chunk number outside ``range(len(self))``.
        """
        self._check_range(chunk_indices)
        utterances, places = np.divmod(chunk_indices, self.num_chunks)
        starts = chunk_starts(self._num_frames[utterances], self.num_chunks, self.form.chunk_frames)
        return self._frames_from(utterances, starts[np.arange(len(places)), places], device)

    def gather_at(
        self,
        utterances: Int64[np.ndarray, " chunk"],
        places: Float64[np.ndarray, " chunk"],
        device: torch.device | str | None = None,
    ) -> Float32[Tensor, "chunk frame width"]:
        """Normalised chunks that begin anywhere in their utterances.

        Args:
            utterances: place in this set of each chunk's utterance.
            places: where a chunk begins, from 0 (first frame) to below 1 (the last one that leaves room).
            device: see :meth:`gather`.
        """
        spare = np.maximum(self._num_frames[utterances] - self.form.chunk_frames, 0)
        return self._frames_from(utterances, (places * (spare + 1)).astype(np.int64), device)

    def _frames_from(
        self, utterances: np.ndarray, starts: np.ndarray, device: torch.device | str | None
    ) -> Tensor:
        target = torch.device(device or "cpu")
        offset = None if self.offsets is None else torch.from_numpy(self.offsets.at(utterances))
        if self._held is not None and self._held.is_on(target):
            return self.normalizer.normalize(self._gather_held(self._held, utterances, starts), offset)
        shape = (len(starts), self.form.chunk_frames, self.store.front_end.width)
        gathered = torch.empty(shape, dtype=torch.float16, pin_memory=target.type == "cuda")
        self._copy_frames(utterances, starts, gathered.numpy())
        return self.normalizer.normalize(gathered.to(target, non_blocking=True), offset)

    @property
    def num_bytes(self) -> int:
        """Memory in bytes that :meth:`hold_on` needs for this set's frames."""
        return int(self._num_frames.sum()) * self.store.front_end.width * 2

    def hold_on(self, device: torch.device | str) -> None:
        """Copy the frames to a device once; chunks for this device are then gathered from its memory.

        Useful on a GPU with room for :attr:`num_bytes`. The values of the chunks do not change.
        """
        first_frame = np.cumsum(self._num_frames) - self._num_frames
        shape = (int(self._num_frames.sum()), self.store.front_end.width)
        frames = torch.empty(shape, dtype=torch.float16, device=device)
        for start in range(0, self.num_utterances, _UTTERANCES_PER_COPY):
            rows = self.rows[start : start + _UTTERANCES_PER_COPY]
            block = torch.from_numpy(np.concatenate([self.store.frames(row) for row in rows]))
            frames[first_frame[start] : first_frame[start] + len(block)] = block.to(device)
        self._held = _HeldFrames(frames, first_frame)

    def spread_out(self, num_utterances: int) -> ChunkSet:
        """At most ``num_utterances`` of this set's utterances, evenly spaced."""
        if self.num_utterances <= num_utterances:
            return self
        chosen = np.linspace(0, self.num_utterances - 1, num_utterances).astype(np.int64)
        return ChunkSet(self.store, self.rows[chosen], self.normalizer, self.form, self._means)

    def utterance_of(self, chunk_indices: Int64[np.ndarray, " chunk"]) -> Int64[np.ndarray, " chunk"]:
        """Index of each chunk's utterance in this set (not its row in the store)."""
        return chunk_indices // self.num_chunks

    @property
    def table(self) -> pa.Table:
        """The store's row of each utterance."""
        return self._table

    def labels(self, attributes: Sequence[str]) -> Float64[np.ndarray, "utterance attribute"]:
        """Labels in the corpus's scale; NaN if missing."""
        labels = np.empty((self.num_utterances, len(attributes)))
        for column, attribute in enumerate(attributes):
            labels[:, column] = self._table[attribute].to_numpy()
        return labels

    def speakers(self) -> list[str | None]:
        """Speaker of each utterance; None if unknown."""
        return self._table["speaker"].to_pylist()

    def emotions(self) -> list[str | None]:
        """Emotion class of each utterance; None if unknown."""
        return self._table["emotion"].to_pylist()

    def _check_range(self, chunk_indices: np.ndarray) -> None:
        if len(chunk_indices) and not 0 <= chunk_indices.min() <= chunk_indices.max() < len(self):
            raise IndexError(f"chunk numbers must be from 0 to {len(self) - 1}")

    def _copy_frames(self, utterances: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
        num_frames = self._num_frames[utterances]
        first_frames = self._first_frame[utterances] + starts
        # Plain integers: this loop runs once per chunk, and numpy scalars would cost more than the copy.
        wanted = zip(
            self._shard[utterances].tolist(), first_frames.tolist(), num_frames.tolist(), strict=True
        )
        length = self.form.chunk_frames
        for chunk, (shard, first, available) in enumerate(wanted):
            frames = self.store.shard_frames(shard)
            if available >= length:
                out[chunk] = frames[first : first + length]
            else:
                out[chunk] = frames[first + wrapped(np.arange(length), available)]

    def _gather_held(self, held: _HeldFrames, utterances: np.ndarray, starts: np.ndarray) -> Tensor:
        num_frames = self._num_frames[utterances]
        place = np.stack([held.first_frame[utterances], starts, num_frames])
        first, start, length = torch.from_numpy(place).to(held.frames.device)[:, :, None]
        frame = torch.arange(self.form.chunk_frames, device=held.frames.device)
        return held.frames[first + wrapped(start + frame, length)]
