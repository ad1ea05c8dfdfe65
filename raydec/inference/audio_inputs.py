"""Which audio files a prediction command means: files, folders and lists of files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raydec.corpus.audio_files import is_audio, list_audio
from raydec.errors import UserError
from raydec.files.remote import list_uri, local_copy, uri_below
from raydec.files.storage import is_uri

# Headers under which lists of recordings name them, in order of preference.
_COLUMNS = ("file", "path", "file_name", "filename", "file_path", "filepath", "audio", "audio_path", "wav")
_LIST_READERS = (".csv", ".txt", ".parquet")


def find_inputs(paths: Sequence[str | Path]) -> list[str]:
    """All audio files, in order and without repetition.

    Args:
        paths: audio files; folders, searched recursively; or lists: ``.txt`` with a path per line, ``.csv``
            or ``.parquet`` with a column such as ``file`` or ``path``. Paths in lists are relative to the
            list's folder. Any of them may be a URI that Arrow knows, such as ``s3://bucket/folder``.

    Raises:
        UserError: a path does not exist, a folder has no audio, or a list has no column of files.
    """
    found: list[str] = []
    for name in paths:
        if isinstance(name, str) and is_uri(name):
            found += _remote(name)
            continue
        path = Path(name)
        if path.is_dir():
            found += _folder(path)
        elif not path.exists():
            raise UserError(f"{path} does not exist; name audio files, folders, or lists of files")
        elif path.suffix.lower() in _LIST_READERS:
            found += _listed(path, str(path.parent))
        else:
            found.append(str(path))
    return list(dict.fromkeys(found))


def _folder(path: Path) -> list[str]:
    names = [file.name for file in list_audio(path).files]
    if not names:
        raise UserError(f"{path} holds no audio files")
    return [str(path / name) for name in names]


def _remote(uri: str) -> list[str]:
    below = list_uri(uri)
    if below is not None:
        audio = [name for name in below if is_audio(name)]
        if not audio:
            raise UserError(f"{uri} holds no audio files")
        return audio
    if not uri.lower().endswith(_LIST_READERS):
        return [uri]
    with local_copy(uri) as copy:
        return _listed(Path(copy), uri.rpartition("/")[0])


def _listed(path: Path, folder: str) -> list[str]:
    try:
        names = _parquet_names(path) if path.suffix.lower() == ".parquet" else _text_names(path)
    except (OSError, UnicodeDecodeError, pa.ArrowException, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not names:
        raise UserError(f"{path} lists no files")
    return [name if is_uri(name) else _below(folder, name) for name in names]


def _below(folder: str, name: str) -> str:
    return uri_below(folder, name) if is_uri(folder) else str(Path(folder, name))


def _text_names(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".txt":
        return [line.strip() for line in text.splitlines() if line.strip()]
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter))
    place = _column(path, rows[0] if rows else [])
    return [row[place].strip() for row in rows[1:] if len(row) > place and row[place].strip()]


def _parquet_names(path: Path) -> list[str]:
    names = pq.read_schema(path).names
    column = names[_column(path, names)]
    return [str(name) for name in pq.read_table(path, columns=[column])[column].to_pylist() if name]


def _column(path: Path, names: Iterable[str]) -> int:
    known = [name.strip().lower() for name in names]
    for name in _COLUMNS:
        if name in known:
            return known.index(name)
    raise UserError(f"{path} has no column of files; name one of its columns 'file'")
