"""Files at any URI that Arrow's file systems support, such as ``s3://``, ``gs://``, ``file://``."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs

from raydec.errors import AudioError, UserError
from raydec.files.storage import is_uri, one_line


@contextmanager
def local_copy(name: str, folder: str = "") -> Iterator[str]:
    """A local path of a file; for a URI, a temporary copy that is removed after the block.

    Args:
        name: a path or a URI.
        folder: base of a relative path; default: the working directory.

    Raises:
        AudioError: it cannot be fetched.
    """
    if not is_uri(name):
        yield os.path.join(folder, name)
        return
    with tempfile.TemporaryDirectory(prefix="raydec-") as scratch:
        target = Path(scratch) / f"audio{PurePosixPath(name).suffix}"
        try:
            system, path = pyarrow.fs.FileSystem.from_uri(name)
            with system.open_input_stream(path) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except FileNotFoundError:
            raise AudioError(name, "the file does not exist") from None
        except (OSError, pa.ArrowException) as error:
            raise AudioError(name, f"cannot be fetched: {one_line(error)}") from None
        yield str(target)


def list_uri(uri: str) -> list[str] | None:
    """URIs of all files under a folder, sorted; None if the URI is a file.

    Raises:
        UserError: the URI does not exist or cannot be listed.
    """
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(uri)
        info = system.get_file_info(path)
        if info.type == pyarrow.fs.FileType.File:
            return None
        if info.type == pyarrow.fs.FileType.NotFound:
            raise UserError(f"{uri} does not exist; name audio files, folders, or lists of files")
        below = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{uri} cannot be listed: {one_line(error)}") from None
    base = uri.rstrip("/")
    names = [PurePosixPath(entry.path).relative_to(path) for entry in below if entry.is_file]
    return sorted(uri_below(base, str(name)) for name in names)


def uri_below(folder: str, name: str) -> str:
    """The URI of a file under a folder's URI."""
    return f"{folder.rstrip('/')}/{quote(name)}"
