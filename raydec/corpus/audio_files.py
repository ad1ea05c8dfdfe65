"""Audio files on disk: listing folders, and finding the file of a label row."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from raydec.corpus.table import Skipped
from raydec.errors import UserError

# Decoded by libsndfile; decoded by FFmpeg, if installed; and raw samples, which must be converted first.
_DECODED = (
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1",
    ".aif", ".aiff", ".aifc", ".au", ".snd", ".sph", ".nist", ".caf", ".voc", ".8svx",
)  # fmt: skip
_DECODED_BY_FFMPEG = (
    ".m4a", ".m4b", ".mp4", ".aac", ".3gp", ".3ga", ".amr", ".awb", ".webm", ".weba", ".mka", ".wma", ".ac3",
    ".ape", ".wv", ".tta", ".spx", ".shn",
)  # fmt: skip
_HEADERLESS = (".raw", ".pcm", ".ul", ".al", ".vox", ".gsm")
AUDIO_EXTENSIONS = (*_DECODED, *_DECODED_BY_FFMPEG, *_HEADERLESS)
"""Extensions of audio files. All such files are listed; decoding finds those that cannot be used."""

# Paths on a Windows drive or network share.
_FOREIGN = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_NOT_UTF8 = "its path is not valid UTF-8; rename it"

_T = TypeVar("_T")


class RowProblem(Exception):  # noqa: N818 (it skips a row, and is not an error of the program)
    """A row cannot be used; the message becomes the reason in the list of skipped files."""


class AudioFile(NamedTuple):
    """One file.

    Attributes:
        name: relative to the folder it was found under, with forward slashes.
        path: absolute, with links resolved; the file's identity.
    """

    name: str
    path: str


@dataclass
class Listing:
    """The result of :func:`list_audio`, sorted by name."""

    files: list[AudioFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def list_audio(folder: Path) -> Listing:
    """Every audio file under a folder, except hidden ones; links are followed once.

    Raises:
        UserError: the folder does not exist or cannot be listed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of audio files; name an existing one")
    root = os.path.realpath(folder)
    listing, visited = Listing(), set[str]()
    folders: deque[tuple[str, str]] = deque([(root, "")])
    links: deque[tuple[str, str]] = deque()
    # Linked folders come last, so that a file's name does not depend on the name of a link to it.
    while folders or links:
        real, prefix = folders.popleft() if folders else links.popleft()
        if real in visited:
            continue
        visited.add(real)
        for entry in _entries(real, prefix, folder, listing):
            name = f"{prefix}{entry.name}"
            if not is_folder(entry):
                _take(entry, name, listing)
            elif not entry.is_symlink():
                folders.append((entry.path, f"{name}/"))
            elif not _contains(target := os.path.realpath(entry.path), root):
                links.append((target, f"{name}/"))
    listing.files.sort()
    listing.skipped.sort(key=lambda skip: skip.file)
    return listing


def visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, by name, except hidden ones; empty if there is no such folder.

    Raises:
        UserError: the folder cannot be listed.
    """
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name
            )
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror or error}") from None


def is_audio(name: str) -> bool:
    """Whether a file name has an audio extension, ignoring case."""
    return name.lower().endswith(AUDIO_EXTENSIONS)


def has_audio(folder: Path) -> bool:
    """Whether there is at least one audio file under a folder."""
    return folder.is_dir() and bool(list_audio(folder).files)


def is_hidden(name: str) -> bool:
    """Whether a file name is hidden, such as ``._x.wav`` or ``.DS_Store``, which some tools create."""
    return name.startswith(".")


def similar_name(name: str, names: Iterable[str]) -> str | None:
    """The audio file that a wrong name probably means: one with another extension or other leading zeros."""
    wanted = _stem(name)
    return min((other for other in names if is_audio(other) and _stem(other) == wanted), default=None)


def _stem(name: str) -> str:
    stem = os.path.splitext(name)[0] if is_audio(name) else name
    return stem.casefold().lstrip("0") or "0"


def printable(name: str) -> str:
    """A file name for a message or a table, with bytes that are not UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _entries(real: str, prefix: str, folder: Path, listing: Listing) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(real) as entries:
            visible = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        if not prefix:
            raise UserError(f"cannot list {folder}: {error.strerror or error}") from None
        listing.warnings.append(f"cannot list {folder / prefix}: {error.strerror or error}; it is left out")
        return []
    # Sorted, because disk order is arbitrary and the first of two links to a folder names its files.
    return sorted(visible, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link to one; a link to itself is not."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _contains(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def _take(entry: os.DirEntry[str], name: str, listing: Listing) -> None:
    if not is_audio(entry.name):
        return
    path = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
    if not _is_utf8(path + name):
        listing.skipped.append(Skipped(printable(name), _NOT_UTF8))
    elif not is_file(entry):
        listing.skipped.append(Skipped(name, "a link to a missing file, or not a regular file"))
    else:
        listing.files.append(AudioFile(name, path))


def _is_utf8(name: str) -> bool:
    return name == printable(name)


def _folded(name: str) -> str:
    """A normal form of a name: macOS decomposes accents, Windows ignores case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _grouped(items: Iterable[_T], key: Callable[[_T], str]) -> dict[str, list[_T]]:
    groups: dict[str, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


class FileIndex:
    """Finds the files of a listing, in any subfolder, by their bare names in label files."""

    def __init__(self, files: Iterable[AudioFile]) -> None:
        self._files = list(files)
        self._by_name = {file.name: file for file in self._files}
        self._by_base = _grouped(self._files, lambda file: _base(file.name))
        self._by_folded_name: dict[str, list[AudioFile]] | None = None
        self._by_folded_base: dict[str, list[AudioFile]] = {}

    def locate(self, name: str) -> AudioFile:
        """Find the file of a row by exact path, then by name, then by both ignoring case and Unicode form.

        Returns:
            The file, with ``name`` in the spelling of the row, by which rows and predictions are matched.

        Raises:
            RowProblem: there is no such file, or several share the name.
        """
        if name in self._by_name:
            return self._by_name[name]
        found = self._by_base.get(name) or self._folded_matches(name)
        if len(found) > 1:
            raise RowProblem(f"{len(found)} audio files have this name: {found[0].name}, {found[1].name}")
        if not found:
            similar = similar_name(_base(name.replace("\\", "/")), self._by_base)
            hint = f"; there is {self._by_base[similar][0].name}" if similar else ""
            raise RowProblem(f"no audio file of this name{hint}")
        return AudioFile(name, found[0].path)

    def _folded_matches(self, name: str) -> list[AudioFile]:
        if self._by_folded_name is None:
            self._by_folded_name = _grouped(self._files, lambda file: _folded(file.name))
            self._by_folded_base = _grouped(self._files, lambda file: _folded(_base(file.name)))
        return self._by_folded_name.get(_folded(name)) or self._by_folded_base.get(_folded(name), [])


class AudioRoot:
    """Finds files by relative path beneath a root that no path may leave.

    Each folder is resolved and listed only once, so that finding a file is a dictionary look-up.

    Args:
        root: the folder that paths must not leave; names are relative to it.
        base: base of relative paths; default: the root.
    """

    def __init__(self, root: Path, base: Path | None = None) -> None:
        self.root = os.path.realpath(root)
        self._base = os.path.realpath(base or root)
        self._folders: dict[str, _Folder] = {}

    def locate(self, name: str) -> AudioFile:
        """The file at a path, with its name made relative to the root.

        Raises:
            RowProblem: the path leaves the root, there is no such file, or several spellings fit.
        """
        if "\0" in name:
            raise RowProblem("its path contains a NUL character")
        try:
            return self._locate(name)
        except RowProblem as problem:
            if _FOREIGN.match(name):
                raise RowProblem(
                    f"a path on another computer; make it relative to {self.root}{self._suffix_hint(name)}"
                ) from None
            # Written on Windows: try the other separator, but report the error for the given path.
            if "\\" in name:
                return self._locate(name.replace("\\", "/"))
            if os.path.isabs(name) and (hint := self._suffix_hint(name)):
                raise RowProblem(f"{problem}{hint}") from None
            raise

    def _suffix_hint(self, name: str) -> str:
        """The longest end of a path that is a file beneath the root, as a hint; empty if there is none."""
        parts = name.replace("\\", "/").split("/")
        for start in range(1, len(parts)):
            suffix = "/".join(parts[start:])
            try:
                self._locate(suffix)
            except RowProblem:
                continue
            return f", for example {suffix}"
        return ""

    def _locate(self, name: str) -> AudioFile:
        directory, base = os.path.split(name)
        if directory not in self._folders:
            self._folders[directory] = self._open(directory)
        folder = self._folders[directory]
        if not self._holds(folder.real):
            raise self._escape()
        entry = folder.match(base)
        path = os.path.join(folder.real, entry)
        target = os.path.realpath(path) if folder.entries[entry] else path
        if not self._holds(target):
            raise self._escape()
        if not _is_utf8(path + target):
            raise RowProblem(_NOT_UTF8)
        return AudioFile(os.path.relpath(path, self.root).replace(os.sep, "/"), target)

    def _open(self, directory: str) -> _Folder:
        for form in (directory, *(unicodedata.normalize(form, directory) for form in ("NFC", "NFD"))):
            real = os.path.realpath(os.path.join(self._base, form))
            # Nothing outside the root is accessed, not even to check whether it exists.
            if not self._holds(real) or os.path.isdir(real):
                break
        return _Folder.open(real) if self._holds(real) else _Folder(real, {})

    def _holds(self, path: str) -> bool:
        return _contains(self.root, path)

    def _escape(self) -> RowProblem:
        return RowProblem(f"its path leaves {self.root}; name a folder that contains all audio with --audio")


@dataclass
class _Folder:
    """A listed folder: ``entries`` maps file names to whether they are links."""

    real: str
    entries: dict[str, bool]
    _by_folded: dict[str, list[str]] | None = None

    @classmethod
    def open(cls, real: str) -> _Folder:
        try:
            with os.scandir(real) as entries:
                return cls(real, {entry.name: entry.is_symlink() for entry in entries if is_file(entry)})
        except OSError:
            return cls(real, {})

    def match(self, name: str) -> str:
        """The entry with a name.

        Raises:
            RowProblem: there is none, or there are several that differ only in case or Unicode form.
        """
        if name in self.entries:
            return name
        if self._by_folded is None:
            self._by_folded = _grouped(self.entries, _folded)
        found = self._by_folded.get(_folded(name), [])
        if not found:
            similar = similar_name(name, self.entries)
            raise RowProblem("no audio file at this path" + (f"; there is {similar}" if similar else ""))
        if len(found) > 1:
            raise RowProblem(f"{len(found)} audio files have this name: {found[0]}, {found[1]}")
        return found[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]
