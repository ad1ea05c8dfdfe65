"""Divide a long list of files into parts, and predict them in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from raydec.inference.audio_inputs import Source
from raydec.inference.prediction import Predictor
from raydec.inference.rows import CpuClock, RowOptions, predict_files
from raydec.learning.host import keep_freed_memory

# The unit of work that a crash loses and that is sent to a process: some dozen files, or a long one.
_FILES_PER_PART = 32
_BYTES_PER_PART = 64 << 20

Add = Callable[[pa.Table, CpuClock], None]
"""Receives the rows of one part and the CPU time that they took."""
Runner = Callable[[Predictor, Sequence[Sequence[Source]], RowOptions, Add], None]
"""Predicts all parts, in any order, and passes each part's rows to ``Add`` as soon as they are ready."""


def divide(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Files in the order given, a part at a time."""
    part: list[Source] = []
    num_bytes = 0
    for source in sources:
        size = os.path.getsize(source.file) if os.path.exists(source.file) else 0
        if part and (len(part) == _FILES_PER_PART or num_bytes + size > _BYTES_PER_PART):
            yield part
            part, num_bytes = [], 0
        part.append(source)
        num_bytes += size
    yield part


def run_here(predictor: Predictor, parts: Sequence[Sequence[Source]], options: RowOptions, add: Add) -> None:
    """A :data:`Runner` in this process."""
    keep_freed_memory()
    for part in parts:
        clock = CpuClock()
        add(predict_files(predictor, part, options, clock), clock)
