"""Find the audio files of a prediction command: files, folders and lists of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raydec.corpus.audio_files import FileIndex, RowProblem, is_audio, list_audio
from raydec.corpus.delimited import read_text
from raydec.corpus.label_file import MANIFEST_SUFFIXES, read_label_file
from raydec.corpus.msp_podcast import audio_folders
from raydec.corpus.segments import WHOLE, Segment, segment_of
from raydec.errors import UserError
from raydec.files.remote import list_uri, local_copy, uri_below
from raydec.files.storage import is_uri

_PATHS, _KALDI = ".txt", ".scp"
_LIST_SUFFIXES = (_PATHS, _KALDI, ".json", *MANIFEST_SUFFIXES)


class Source(NamedTuple):
    """A file to predict.

    Attributes:
        file: a path or a URI.
        segments: the parts of it to predict.
    """

    file: str
    segments: tuple[Segment, ...] = (WHOLE,)

    @classmethod
    def of(cls, value: Source | str | Sequence[Any]) -> Source:
        """A source from its file's name, or from a source that was written as JSON."""
        if isinstance(value, str):
            return cls(value)
        return cls(value[0], tuple(Segment(*segment) for segment in value[1]))


def find_inputs(paths: Sequence[str | Path]) -> list[Source]:
    """All audio files, in order and without repetition.

    Args:
        paths: audio files; folders, searched recursively; or lists of files: ``.txt`` with a path per line,
            Kaldi's ``wav.scp``, or a table (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``) with a column such
            as ``file`` or ``path``, and perhaps ``start`` and ``end``. Paths in lists are relative to the
            list's folder. Any of them may be a URI that Arrow knows, such as ``s3://bucket/folder``.

    Raises:
        UserError: a path does not exist, a folder has no audio, or a list has no column of files.
    """
    found: dict[str, list[Segment]] = {}
    for path in paths:
        for file, segment in _sources(path):
            segments = found.setdefault(file, [])
            if segment not in segments:
                segments.append(segment)
    return [Source(file, tuple(segments)) for file, segments in found.items()]


_Found = list[tuple[str, Segment]]


def _sources(name: str | Path) -> _Found:
    if isinstance(name, str) and is_uri(name):
        return _remote(name)
    path = Path(name)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; name audio files, folders, or lists of files")
    if path.suffix.lower() in _LIST_SUFFIXES:
        return _listed(path, str(path.parent))
    return [(str(path), WHOLE)]


def _folder(path: Path) -> _Found:
    names = [file.name for file in list_audio(path).files]
    if not names:
        raise UserError(f"{path} holds no audio files")
    return [(str(path / name), WHOLE) for name in names]


def _remote(uri: str) -> _Found:
    below = list_uri(uri)
    if below is not None:
        audio = [(name, WHOLE) for name in below if is_audio(name)]
        if not audio:
            raise UserError(f"{uri} holds no audio files")
        return audio
    if not uri.lower().endswith(_LIST_SUFFIXES):
        return [(uri, WHOLE)]
    with local_copy(uri) as copy:
        return _listed(Path(copy), uri.rpartition("/")[0])


def _listed(path: Path, folder: str) -> _Found:
    """The sources in a list; ``path`` may be a copy of a list whose place is ``folder``."""
    suffix = path.suffix.lower()
    if suffix in (_PATHS, _KALDI):
        lines = [line.strip() for line in read_text(path)[0].splitlines() if line.strip()]
        names = lines if suffix == _PATHS else [_kaldi_path(path, line) for line in lines]
        listed = [(name, WHOLE) for name in names]
    else:
        listed = _table(path)
    if not listed:
        raise UserError(f"{path} lists no files")
    if is_uri(folder):
        return [(name if is_uri(name) else uri_below(folder, name), segment) for name, segment in listed]
    return _beside(Path(folder), listed)


def _kaldi_path(path: Path, line: str) -> str:
    """The path in a line of ``wav.scp``: an utterance's name, then its file."""
    name, _, file = line.partition(" ")
    if file.rstrip().endswith("|"):
        raise UserError(
            f"{path}: {name} is a command ({file.strip()[:60]}); raydec runs no commands of lists: write its "
            "output to a file and name that"
        )
    return file.strip() or name


def _table(path: Path) -> _Found:
    table = read_label_file(path)
    if table.skipped:
        raise UserError(f"{table.skipped[0].file}: {table.skipped[0].reason}")
    blanks: Sequence[Any] = [None] * len(table.numbers)
    times = [table.columns.get(name, blanks) for name in ("start", "end", "duration")]
    listed = []
    for row, (file, *cells) in enumerate(zip(table.columns["file"], *times, strict=True)):
        if file is None or not str(file).strip():
            continue
        try:
            listed.append((str(file).strip(), segment_of(*cells)))
        except ValueError as error:
            raise UserError(f"{table.place(row)}: {error}") from None
    return listed


def _beside(folder: Path, listed: _Found) -> _Found:
    """Paths of a list's files: relative to its folder, else below the audio folder that goes with it.

    In the MSP-Podcast layout and its like, ``Labels/labels_consensus.csv`` names files of ``Audios/``.
    """
    paths = [name if is_uri(name) else str(folder / name) for name, _ in listed]
    lost = [place for place, path in enumerate(paths) if not is_uri(path) and not os.path.exists(path)]
    audio = next(iter([*audio_folders(folder), *audio_folders(folder.parent)]), None) if lost else None
    if audio is not None:
        index = FileIndex(list_audio(audio).files)
        for place in lost:
            try:
                found = index.locate(listed[place][0]).path
            except RowProblem:
                continue  # its row will report that it does not exist
            paths[place] = os.path.join(audio, os.path.relpath(found, os.path.realpath(audio)))
    return [(path, segment) for path, (_, segment) in zip(paths, listed, strict=True)]
