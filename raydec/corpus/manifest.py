"""Reads generic manifests: a table in CSV, TSV, Parquet or JSON lines with one audio path per row.

Also reads Hugging Face's AudioFolder, which may have a ``metadata.csv`` in the folder of every split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from raydec.corpus.audio_files import AudioFile, AudioRoot, RowProblem, is_file, is_folder, visible_entries
from raydec.corpus.label_file import MANIFEST_SUFFIXES, has_file_column, read_label_file
from raydec.corpus.rows import Reading, RowCollector
from raydec.corpus.table import name_some
from raydec.errors import UserError
from raydec.splits import CANONICAL_SPLITS, canonical_split

# In order of preference, if a folder has several tables.
_KNOWN_STEMS = ("metadata", "manifest")
_AUDIOFOLDER_STEM = "metadata"
_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_OTHER_TABLES = (*_SPREADSHEETS, ".json", ".feather", ".arrow", ".pkl", ".pickle", ".sav", ".dta", ".rds")
_SPLIT_REMEDY = "add a column 'split' with the values train, validation, test or unlabeled"


def read_manifest(
    corpus_dir: Path, labels: Path | None, audio: Path | None, label_range: tuple[float, float]
) -> Reading:
    """Read a corpus with a manifest.

    Args:
        corpus_dir: the corpus folder.
        labels: the manifest; default: found in the corpus folder.
        audio: base of the paths, which they must not leave; default: the manifest's folder, then the corpus
            folder.
        label_range: lowest and highest valid label.

    Raises:
        UserError: there is no manifest or more than one, it cannot be read, or no labeled row has a split.
    """
    manifests = [labels] if labels else find_manifests(corpus_dir)
    if not manifests:
        kinds = ", ".join(MANIFEST_SUFFIXES)
        raise UserError(f"no manifest ({kinds}) with a column of file names in {corpus_dir}; use --labels")
    if audio is not None and not audio.is_dir():
        raise UserError(f"{audio} is not a folder of audio files; name an existing one")
    is_audiofolder = all(path.stem.lower() == _AUDIOFOLDER_STEM for path in manifests)
    collector = RowCollector(label_range, folder_split if is_audiofolder else _no_split, _SPLIT_REMEDY)
    for path in manifests:
        collector.add(read_label_file(path), _locator(_roots(corpus_dir, path, audio)))
    return collector.finish()


def find_manifests(corpus_dir: Path) -> list[Path]:
    """The manifest of a folder, or those of its subfolders in the AudioFolder layout, if any.

    Raises:
        UserError: several tables could be the manifest.
    """
    tables = [path for path in _tables(corpus_dir) if has_file_column(path)]
    for stem in _KNOWN_STEMS:
        tables = [path for path in tables if path.stem.lower() == stem] or tables
    if len(tables) > 1:
        names = name_some([path.name for path in tables])
        raise UserError(f"several tables in {corpus_dir} could be the manifest ({names}); use --labels")
    if tables:
        return tables
    folders = [*_folders(corpus_dir), *_folders(corpus_dir / "data")]
    return [path for folder in folders for path in _tables(folder) if path.stem.lower() == _AUDIOFOLDER_STEM]


def unread_tables(corpus_dir: Path) -> list[str]:
    """Tables of a corpus folder that were not read as labels, each with the reason and the remedy."""
    found = []
    for entry in visible_entries(corpus_dir):
        name = entry.name.lower()
        if not is_file(entry) or not name.endswith((*MANIFEST_SUFFIXES, *_OTHER_TABLES)):
            continue
        if name.endswith(_SPREADSHEETS):
            found.append(f"{entry.name} is a spreadsheet; save it as CSV")
        elif name.endswith(_OTHER_TABLES):
            found.append(f"{entry.name} has an unsupported format; save it as CSV")
        else:
            found.append(f"{entry.name} has no column of file names; name one of its columns 'file'")
    return found


def folder_split(file: AudioFile) -> str | None:
    """The split given by a file's folders, as in ``data/train/0001.wav``, or None."""
    for part in file.name.split("/")[:-1]:
        try:
            split = canonical_split(part)
        except UserError:
            continue
        if split in CANONICAL_SPLITS:
            return split
    return None


def _no_split(file: AudioFile) -> str | None:
    return None


def _tables(folder: Path) -> list[Path]:
    return [
        folder / entry.name
        for entry in visible_entries(folder)
        if entry.name.lower().endswith(MANIFEST_SUFFIXES) and is_file(entry)
    ]


def _folders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in visible_entries(folder) if is_folder(entry)]


def _roots(corpus_dir: Path, manifest: Path, audio: Path | None) -> list[AudioRoot]:
    if audio is not None:
        return [AudioRoot(audio)]
    corpus, folder = Path(os.path.realpath(corpus_dir)), Path(os.path.realpath(manifest.parent))
    if folder == corpus:
        return [AudioRoot(corpus)]
    if folder.is_relative_to(corpus):
        return [AudioRoot(corpus, base=folder), AudioRoot(corpus)]
    return [AudioRoot(folder), AudioRoot(corpus)]


def _locator(roots: Sequence[AudioRoot]) -> Callable[[str], AudioFile]:
    """Search the roots in order; if all fail, the error is that of the first root."""

    def locate(name: str) -> AudioFile:
        first: RowProblem | None = None
        for root in roots:
            try:
                return root.locate(name)
            except RowProblem as problem:
                first = first or problem
        assert first is not None
        raise first

    return locate
