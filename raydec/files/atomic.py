"""Atomic writes: files appear under their names only when complete, so a crash leaves no partial files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from raydec.errors import FULL_DISK, UserError

TEMPORARY_PREFIX = ".partial-"
# Half the time of hashlib.file_digest for files of a few seconds, whose buffer leaves the processor's cache.
_PIECE_BYTES = 1 << 16


def file_sha256(path: str | Path) -> str:
    """Checksum of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def write_arrow(target: Path, batch: pa.RecordBatch) -> None:
    """Write one record batch as an Arrow IPC file, atomically."""
    with temporary_file(target.parent) as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        publish(file, target)


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file, atomically."""
    with temporary_file(target.parent) as file:
        # File names that are not valid Unicode contain surrogates, which cannot be encoded strictly.
        file.write(text.encode("utf-8", errors="backslashreplace"))
        publish(file, target)


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[BinaryIO]:
    """A new file in ``folder``, which is removed afterwards unless :func:`publish` renamed it."""
    path = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        with open(path, "xb") as file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def publish(file: BinaryIO, target: Path) -> None:
    """Rename a complete temporary file, atomically replacing an existing target."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, target)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A new folder next to ``target``, to be filled and renamed; it is removed if it was not renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{target.name}-", dir=target.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def point_link(link: Path, target: Path) -> None:
    """Point a link at a folder, atomically."""
    arriving = link.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    arriving.symlink_to(target, target_is_directory=True)
    os.replace(arriving, link)


@contextlib.contextmanager
def full_disk_explained(folder: Path, kept: str = "finished shards are kept") -> Iterator[None]:
    """Convert the error of a full disk into a message with the folder and the remedy.

    Args:
        folder: the folder that is written to.
        kept: the end of the message, which says what work is kept.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise UserError(
            f"no space left in {folder} ({error.strerror}); free some and run the same command again: {kept}"
        ) from None
