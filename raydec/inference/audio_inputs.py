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
        speakers: speaker of each segment, where a list names speakers; else empty.
    """

    file: str
    segments: tuple[Segment, ...] = (WHOLE,)
    speakers: tuple[str | None, ...] = ()

    @classmethod
    def of(cls, value: Source | str | Sequence[Any]) -> Source:
        """A source from its file's name, or from a source that was written as JSON."""
        if isinstance(value, str):
            return cls(value)
        return cls(value[0], tuple(Segment(*segment) for segment in value[1]), tuple(value[2]))

    def parts(self) -> list[tuple[Segment, str | None]]:
        """Each segment with its speaker."""
        return list(zip(self.segments, self.speakers or [None] * len(self.segments), strict=True))


def find_inputs(paths: Sequence[str | Path]) -> list[Source]:
    """All audio files, in order and without repetition.

    Args:
        paths: audio files; folders, searched recursively; or lists of files: ``.txt`` with a path per line,
            Kaldi's ``wav.scp``, or a table (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``) with a column such
            as ``file`` or ``path``, and perhaps ``start``, ``end`` and ``speaker``. Paths in lists are
            relative to the list's folder. Any of them may be a URI that Arrow supports, such as
            ``s3://bucket/folder``.

    Raises:
        UserError: a path does not exist, a folder has no audio, or a list has no column of files.
    """
    found: dict[str, dict[Segment, str | None]] = {}
    for path in paths:
        for source in _sources(path):
            segments = found.setdefault(source.file, {})
            for segment, speaker in source.parts():
                segments[segment] = segments.get(segment) or speaker
    return [
        Source(file, tuple(segments), tuple(segments.values()) if any(segments.values()) else ())
        for file, segments in found.items()
    ]


_Found = list[Source]


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
    return [Source(str(path))]


def _folder(path: Path) -> _Found:
    names = [file.name for file in list_audio(path).files]
    if not names:
        raise UserError(f"{path} contains no audio files")
    return [Source(str(path / name)) for name in names]


def _remote(uri: str) -> _Found:
    below = list_uri(uri)
    if below is not None:
        audio = [Source(name) for name in below if is_audio(name)]
        if not audio:
            raise UserError(f"{uri} contains no audio files")
        return audio
    if not uri.lower().endswith(_LIST_SUFFIXES):
        return [Source(uri)]
    with local_copy(uri) as copy:
        return _listed(Path(copy), uri.rpartition("/")[0])


def _listed(path: Path, folder: str) -> _Found:
    """The sources in a list; ``path`` may be a copy of a list whose place is ``folder``."""
    suffix = path.suffix.lower()
    if suffix in (_PATHS, _KALDI):
        lines = [line.strip() for line in read_text(path)[0].splitlines() if line.strip()]
        names = lines if suffix == _PATHS else [_kaldi_path(path, line) for line in lines]
        listed = [Source(name) for name in names]
    else:
        listed = _table(path)
    if not listed:
        raise UserError(f"{path} lists no files")
    if is_uri(folder):
        return [
            found if is_uri(found.file) else found._replace(file=uri_below(folder, found.file))
            for found in listed
        ]
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
    cells = [table.columns.get(name, blanks) for name in ("speaker", "start", "end", "duration")]
    listed = []
    for row, (file, speaker, *times) in enumerate(zip(table.columns["file"], *cells, strict=True)):
        if file is None or not str(file).strip():
            continue
        try:
            listed.append(
                Source(str(file).strip(), (segment_of(*times),), () if speaker is None else (str(speaker),))
            )
        except ValueError as error:
            raise UserError(f"{table.place(row)}: {error}") from None
    return listed


def _beside(folder: Path, listed: _Found) -> _Found:
    """Paths of a list's files: relative to its folder, else below the audio folder next to it.

    In the MSP-Podcast layout and similar ones, ``Labels/labels_consensus.csv`` names files of ``Audios/``.
    """
    paths = [found.file if is_uri(found.file) else str(folder / found.file) for found in listed]
    lost = [place for place, path in enumerate(paths) if not is_uri(path) and not os.path.exists(path)]
    audio = next(iter([*audio_folders(folder), *audio_folders(folder.parent)]), None) if lost else None
    if audio is not None:
        index = FileIndex(list_audio(audio).files)
        for place in lost:
            try:
                located = index.locate(listed[place].file).path
            except RowProblem:
                continue  # its row will report that it does not exist
            paths[place] = os.path.join(audio, os.path.relpath(located, os.path.realpath(audio)))
    return [found._replace(file=path) for path, found in zip(paths, listed, strict=True)]
