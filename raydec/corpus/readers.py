"""Detects a corpus layout, reads the corpus, and adds pools of unlabeled speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from raydec.corpus.audio_files import AudioFile, has_audio, list_audio
from raydec.corpus.demo import is_demo_corpus
from raydec.corpus.manifest import find_manifests, read_manifest, unread_tables
from raydec.corpus.msp_podcast import find_labels, has_label_folder, is_msp_podcast, read_msp_podcast
from raydec.corpus.rows import Reading, unlabeled_record
from raydec.corpus.table import Corpus, Skipped, table_warnings, validate_table
from raydec.errors import UserError

Format = Literal["auto", "msp-podcast", "manifest", "folder"] | str
"""A built-in layout, or the name of a reader that was registered by :func:`register_reader`."""
Reader = Callable[[Path, Path | None, Path | None, tuple[float, float]], Reading]
_NO_ROW = "no label row; pass its folder with --unlabeled to use it unlabeled"


def read_corpus(
    corpus_dir: Path,
    *,
    labels: Path | None = None,
    audio: Path | None = None,
    unlabeled: Sequence[Path] = (),
    format: Format = "auto",
    label_range: tuple[int | float, int | float] = (1, 7),
) -> Corpus:
    """Read a corpus into a validated utterance table.

    Args:
        corpus_dir: the corpus folder, or a manifest file in it.
        labels: label file; default: where the layout expects it.
        audio: audio folder; default: where the layout expects it.
        unlabeled: folders of further speech, searched recursively. Files with a label row are not added
            again.
        format: the layout; ``auto`` detects it.
        label_range: lowest and highest valid label; rows outside it are skipped.

    Returns:
        The corpus; files and rows that cannot be used are in its ``skipped``, each with a reason.

    Raises:
        UserError: a given path does not exist or cannot be read, the layout is not recognised, or there are
            no usable utterances.
    """
    low, high = map(float, label_range)
    _check_arguments(corpus_dir, labels, audio, (low, high))
    if corpus_dir.is_file():
        if labels is not None:
            raise UserError(f"{corpus_dir} is a file; name its folder, or omit --labels {labels}")
        corpus_dir, labels = corpus_dir.parent, corpus_dir
    was_detected = format == "auto"
    if format == "auto":
        format, labels = _detect(corpus_dir, labels, audio)
    reading = _reader(format)(corpus_dir, labels, audio, (low, high))
    if was_detected and format == "folder" and (unread := unread_tables(corpus_dir)):
        reading.warnings.insert(0, f"NO LABELS WERE READ, although there are tables: {'; '.join(unread)}")
    for pool in unlabeled:
        _add_pool(reading, pool)
    return replace(_finish(reading, corpus_dir, format), label_range=(low, high))


def register_reader(name: str) -> Callable[[Reader], Reader]:
    """Register a function as the reader for ``format=NAME``.

    Args:
        name: the layout's name; an existing reader of this name is replaced.

    Returns:
        A decorator for a function that takes the corpus folder, the label file and the audio folder (None
        if not given) and the range of valid labels, and returns a :class:`raydec.corpus.rows.Reading`.
    """

    def register(read: Reader) -> Reader:
        _registered[name] = read
        return read

    return register


def _reader(name: str) -> Reader:
    if name not in _registered:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            _registered[name] = entry.load()
    if name not in _registered:
        known = ", ".join(sorted(_registered))
        raise UserError(
            f"unknown corpus format {name!r}; known: {known}; import the module that registers it, or "
            f"install the package that has it as an entry point of {ENTRY_POINTS}"
        )
    return _registered[name]


def _check_arguments(
    corpus_dir: Path, labels: Path | None, audio: Path | None, label_range: tuple[float, float]
) -> None:
    if not corpus_dir.exists():
        raise UserError(f"corpus {corpus_dir} does not exist; name its folder")
    if labels is not None and not labels.is_file():
        raise UserError(f"label file {labels} does not exist")
    if audio is not None and not audio.is_dir():
        raise UserError(f"audio folder {audio} does not exist")
    if not label_range[0] < label_range[1]:
        raise UserError(
            f"label range {label_range[0]:g} to {label_range[1]:g} is empty; give low before high"
        )


def _detect(corpus_dir: Path, labels: Path | None, audio: Path | None) -> tuple[Format, Path | None]:
    """The layout of a folder, and its label file if one was given or found."""
    if labels is None:
        labels = find_labels(corpus_dir)
    if labels is not None:
        return ("msp-podcast" if is_msp_podcast(labels) else "manifest"), labels
    manifests = find_manifests(corpus_dir)
    if len(manifests) == 1 and is_msp_podcast(manifests[0]):
        return "msp-podcast", manifests[0]
    if manifests:
        return "manifest", None
    if has_label_folder(corpus_dir):
        # Reading such a corpus as plain audio would drop its labels silently.
        raise UserError(
            f"{corpus_dir} has a label folder without labels_consensus.csv; "
            "name its label file with --labels, or use --format folder to read it without labels"
        )
    if has_audio(audio or corpus_dir):
        return "folder", None
    raise UserError(
        f"{corpus_dir} contains neither Labels/labels_consensus.csv, nor a manifest with a column of file "
        "names, nor audio files; name the label file with --labels"
    )


def _read_folder(
    corpus_dir: Path, labels: Path | None, audio: Path | None, label_range: tuple[float, float]
) -> Reading:
    if labels is not None:
        raise UserError(f"--format folder reads no labels; omit --labels {labels} or choose another format")
    reading = Reading()
    _add_pool(reading, audio or corpus_dir)
    return reading


def _add_pool(reading: Reading, pool: Path) -> None:
    """Add a folder's audio as unlabeled utterances."""
    listing = list_audio(pool)
    if not listing.files:
        raise UserError(f"no audio files (wav, flac, ogg, mp3, opus, m4a and others) under {pool}")
    reading.skipped += listing.skipped
    reading.warnings += listing.warnings
    taken = {record.path for record in reading.records}
    files: dict[str, AudioFile] = {}
    num_taken = 0
    for file in listing.files:
        if file.path in taken:
            num_taken += 1
        elif files.setdefault(file.path, file) is not file:
            reading.skipped.append(Skipped(file.name, f"a link to {files[file.path].name}"))
    if num_taken:
        reading.warnings.append(f"{num_taken} files under {pool} are already in the corpus; read once")
    prefix = _prefix(pool, {record.utterance_id for record in reading.records}, list(files.values()))
    reading.records += [unlabeled_record(file._replace(name=prefix + file.name)) for file in files.values()]
    reading.unclaimed = [file for file in reading.unclaimed if file.path not in files]


def _prefix(pool: Path, taken: set[str], files: Sequence[AudioFile]) -> str:
    """A prefix that makes the names of a pool unique: empty, or the folder's name."""
    folder = pool.resolve().name or "pool"
    prefix, number = "", 1
    while any(prefix + file.name in taken for file in files):
        prefix = f"{folder}/" if number == 1 else f"{folder}-{number}/"
        number += 1
    return prefix


def _finish(reading: Reading, corpus_dir: Path, format: Format) -> Corpus:
    skipped = reading.skipped + [Skipped(file.name, _NO_ROW) for file in reading.unclaimed]
    if not reading.records:
        first = (
            f"; first of {len(skipped)} skipped: {skipped[0].file}: {skipped[0].reason}" if skipped else ""
        )
        raise UserError(f"no usable utterance in {corpus_dir}{first}")
    table = validate_table(reading.to_table())
    return Corpus(
        name=corpus_dir.resolve().name or "corpus",
        table=table,
        skipped=tuple(skipped),
        warnings=(*reading.warnings, *table_warnings(table)),
        format=format,
        synthetic=is_demo_corpus(corpus_dir),
        num_annotators=reading.num_annotators,
    )


ENTRY_POINTS = "raydec.readers"
_registered: dict[str, Reader] = {
    "msp-podcast": read_msp_podcast,
    "manifest": read_manifest,
    "folder": _read_folder,
}
