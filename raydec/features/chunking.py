"""Cuts an utterance of any length into a fixed number of equally long chunks.

Only the hop between chunks varies: chunks of long utterances leave gaps, those of short ones overlap.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from raydec.features.front_end import ChunkFormat
from raydec.features.mel_front_end import CHUNK_FRAMES, NUM_CHUNKS

Numbers = TypeVar("Numbers", np.ndarray, Tensor)


def chunk_starts(
    num_frames: int | Int[np.ndarray, "*utterance"],
    num_chunks: int = NUM_CHUNKS,
    chunk_frames: int = CHUNK_FRAMES,
) -> Int64[np.ndarray, "*utterance chunk"]:
    """First frame of each chunk: ``i * step`` with ``step = trunc((T - chunk_frames) / (num_chunks - 1))``.

    Utterances shorter than a chunk start every chunk at 0; :func:`wrapped` repeats them.

    Args:
        num_frames: length T of one utterance or of many, in frames.
        num_chunks: chunks per utterance.
        chunk_frames: frames per chunk.
    """
    spare = np.maximum(np.asarray(num_frames, dtype=np.int64) - chunk_frames, 0)
    step = spare // max(num_chunks - 1, 1)
    return step[..., None] * np.arange(num_chunks, dtype=np.int64)


def wrapped(frame_numbers: Numbers, num_frames: Numbers | int) -> Numbers:
    """Wrap frame numbers past the end of an utterance to its beginning.

    This repeats utterances that are shorter than a chunk until they fill one; others are not affected.
    """
    return frame_numbers % num_frames


def chunk_utterance(
    frames: Float[Tensor, "frame width"],
    num_chunks: int = NUM_CHUNKS,
    chunk_frames: int = CHUNK_FRAMES,
    short: Literal["tile", "as_is"] = "tile",
) -> Float[Tensor, "chunk m width"]:
    """All chunks of one utterance.

    Args:
        frames: the utterance, at least one frame.
        num_chunks: chunks per utterance.
        chunk_frames: frames per chunk.
        short: handling of utterances shorter than a chunk. ``tile`` repeats them. ``as_is`` follows the
            published code where that does not crash: if the step truncates to 0 (53 to 61 of 62 frames),
            every chunk is the whole, shorter utterance; still shorter utterances are tiled.
    """
    step_is_zero = chunk_frames - len(frames) < num_chunks - 1
    if short == "as_is" and len(frames) < chunk_frames and step_is_zero:
        chunk_frames = len(frames)
    starts = torch.from_numpy(chunk_starts(len(frames), num_chunks, chunk_frames)).to(frames.device)
    numbers = starts[:, None] + torch.arange(chunk_frames, device=frames.device)
    return frames[wrapped(numbers, len(frames))]


def cut(frames: Float[Tensor, "frame width"], form: ChunkFormat) -> Float[Tensor, "chunk m width"]:
    """All chunks of one utterance, as :func:`chunk_utterance`, in the format of a front end."""
    return chunk_utterance(frames, form.num_chunks, form.chunk_frames, form.short)
