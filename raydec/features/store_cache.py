"""A cache for feature stores at a URI: downloaded once per machine, verified, and kept."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from raydec.errors import UserError
from raydec.features.store import FRAMES_FILE, STORE_FILE, UTTERANCES_FILE
from raydec.files.atomic import file_sha256
from raydec.files.storage import is_uri, one_line

CACHE_VARIABLE = "RAYDEC_CACHE"


def local_store(location: str) -> Path:
    """A local folder with a store's content; a store at a URI is downloaded if necessary.

    Concurrent processes wait for the one that downloads. Stores are distinguished by the content of
    ``store.json``, which holds the checksums of all other files.

    Args:
        location: a path, or any URI that pyarrow reads.

    Raises:
        UserError: the store cannot be read, or a downloaded file does not match its checksum.
    """
    if not is_uri(location):
        return Path(location)
    try:
        storage, root = fs.FileSystem.from_uri(location)
        with storage.open_input_stream(f"{root}/{STORE_FILE}") as stream:
            document = bytes(stream.read())
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"data.store={location} cannot be read: {one_line(error)}") from None
    folder = cache_folder() / f"{Path(root).name}-{hashlib.sha256(document).hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        if not folder.is_dir():
            _fetch(storage, root, document, folder, location)
    return folder


def absolute_store(location: str) -> str:
    """A store's absolute location; a URI is returned unchanged."""
    return location if is_uri(location) else str(Path(location).absolute())


def cache_folder() -> Path:
    """Folder of downloaded stores: ``stores`` in ``RAYDEC_CACHE``, else in ``~/.cache/raydec``."""
    named = os.environ.get(CACHE_VARIABLE)
    return (Path(named).expanduser() if named else Path.home() / ".cache" / "raydec") / "stores"


def _fetch(storage: fs.FileSystem, root: str, document: bytes, folder: Path, location: str) -> None:
    arriving = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    arriving.mkdir()
    try:
        for name, sha256 in _checksums(document, location).items():
            fs.copy_files(
                f"{root}/{name}", str(arriving / name), source_filesystem=storage, use_threads=False
            )
            if file_sha256(arriving / name) != sha256:
                raise UserError(
                    f"{name} of data.store={location} does not match its checksum in {STORE_FILE}; "
                    "copy the store there again"
                )
        (arriving / STORE_FILE).write_bytes(document)
        arriving.rename(folder)
    except OSError as error:
        raise UserError(f"data.store={location} cannot be fetched to {folder}: {one_line(error)}") from None
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def _checksums(document: bytes, location: str) -> dict[str, str]:
    """Checksums by file name, of all files except ``store.json``."""
    try:
        content: dict[str, Any] = json.loads(document)
        checksums = {shard["file"]: shard["sha256"] for shard in content["shards"]}
        checksums[UTTERANCES_FILE] = content["utterances"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{STORE_FILE} of data.store={location} is damaged: {one_line(error)}") from None
    for name in checksums:
        # The names are untrusted: none may lead out of the folder.
        if name != UTTERANCES_FILE and not FRAMES_FILE.fullmatch(name):
            raise UserError(
                f"{STORE_FILE} of data.store={location} names {name!r}, which is not a frames file"
            )
    return checksums


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
