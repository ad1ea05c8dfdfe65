"""Predicts a long WAV stream from a pipe, and compares its rows with those of the same file.

    python -m benchmarks.stream MODEL_DIR SPEECH_DIR SCRATCH_DIR [--minutes 60] [--windows 4] [--memory-mib N]

The stream consists of the recordings under SPEECH_DIR at 16 kHz, one after the other, repeated as needed. It
is written as fast as the command reads it. The command's memory is limited by the kernel (RLIMIT_DATA) and
measured. Then the same samples are predicted from a file, and all rows are compared.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from benchmarks.report import argument_parser
from raydec.corpus.audio_files import list_audio
from raydec.features.audio import load_audio

RATE = 16_000
STREAM_SIZE = 0xFFFFFFFF
"""The length in the header of a WAV stream of unknown length."""


def main() -> None:
    """Predict the stream, then the file, and print the comparison as JSON."""
    parser = argument_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--windows", type=float, default=4)
    parser.add_argument("--memory-mib", type=int, default=0, help="limit of the command's memory; 0: none")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    file = options.scratch / "stream.wav"
    with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16") as out:
        for block in speech(options.speech, int(options.minutes * 60 * RATE)):
            out.write(block)
    command = [sys.executable, "-m", "raydec.predict", str(options.model)]
    windows = ["--windows", f"{options.windows:g}"]
    piped = from_pipe([*command, "-", *windows], file, options.memory_mib)
    table = options.scratch / "file.csv"
    begun = time.monotonic()
    subprocess.run(
        [*command, str(file), *windows, "--out", str(table), "--workers", "0", "--restart"], check=True
    )
    file_s = time.monotonic() - begun
    with open(table, encoding="utf-8") as text:
        expected = list(csv.DictReader(text))
    print(json.dumps(piped | {"file_s": round(file_s, 1)} | compared(piped.pop("rows"), expected), indent=2))


def speech(folder: Path, num_samples: int) -> Iterator[np.ndarray]:
    """``num_samples`` samples of speech, int16, one recording at a time."""
    left = num_samples
    for found in itertools.cycle(list_audio(folder).files):
        samples = np.asarray(load_audio(found.path, RATE))[:left]
        yield (samples * 32767).astype(np.int16)
        left -= len(samples)
        if left == 0:
            return


def from_pipe(command: list[str], file: Path, memory_mib: int) -> dict:
    """Rows of the command whose standard input is the file as a stream, with times and memory."""

    def limit() -> None:
        if memory_mib:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_mib << 20, memory_mib << 20))

    begun = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False, preexec_fn=limit
    )
    assert process.stdin is not None and process.stdout is not None
    written = [0]
    writer = threading.Thread(target=write_stream, args=(file, process.stdin, written))
    writer.start()
    lines, memory = [], []
    total = file.stat().st_size
    first_row_s, written_then = 0.0, 0
    for number, line in enumerate(process.stdout):
        lines.append(line.decode())
        if number == 1:
            first_row_s, written_then = time.monotonic() - begun, written[0]
        if number % 50 == 1:
            memory.append(resident_mib(process.pid))
    writer.join()
    if process.wait():
        raise SystemExit(f"the command ended with status {process.returncode}")
    return {
        "rows": list(csv.DictReader(lines)),
        "seconds": round(time.monotonic() - begun, 1),
        "first_row_s": round(first_row_s, 1),
        "share_written_at_first_row": round(written_then / total, 4),
        "resident_mib": memory,
    }


def write_stream(file: Path, out: BinaryIO, written: list[int]) -> None:
    """Write a WAV file as a stream of unknown length; ``written`` counts its bytes."""
    with open(file, "rb") as source, out:
        header = bytearray(source.read(44))
        header[4:8] = header[40:44] = STREAM_SIZE.to_bytes(4, "little")
        out.write(header)
        while block := source.read(1 << 16):
            out.write(block)
            written[0] += len(block)


def resident_mib(pid: int) -> int:
    """Memory of a process now, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def compared(rows: list[dict[str, str]], expected: list[dict[str, str]]) -> dict:
    """Number of rows, and the largest difference of times and scores."""
    numbers = [
        name
        for name in rows[0]
        if name in expected[0] and name not in ("file", "warning", "error", "cluster")
    ]
    ours, theirs = (
        np.array([[float(row[name]) for name in numbers] for row in table]) for table in (rows, expected)
    )
    return {"rows": len(ours), "columns": numbers, "largest_difference": float(np.abs(ours - theirs).max())}


if __name__ == "__main__":
    main()
