"""The MSP-Podcast layout, releases 1.6 to 2.0: consensus labels and audio.

``Partitions.txt`` and, beside the labels, ``labels_detailed.csv`` are optional.
"""

from __future__ import annotations

from pathlib import Path

from raydec.corpus.audio_files import AudioFile, FileIndex, Listing, RowProblem, list_audio, visible_entries
from raydec.corpus.delimited import read_text
from raydec.corpus.label_file import column_names, read_label_file
from raydec.corpus.ratings import RATINGS_FILE, read_ratings
from raydec.corpus.rows import Reading, RowCollector, unlabeled_record
from raydec.corpus.table import Skipped, canonical_split, name_some
from raydec.errors import UserError

_LABEL_FOLDERS = ("labels", "label")
# Up to release 1.8 the file name is misspelled; the JSON file has the same labels.
_LABEL_FILES = (
    "labels_consensus.csv",
    "labels_concensus.csv",
    "labels_consensus.json",
    "labels_concensus.json",
)
_AUDIO_FOLDERS = ("audios", "audio", "wavs", "wav")
_PARTITIONS = "partitions.txt"
_SPLIT_REMEDY = "add a Split_Set column to the labels, or Partitions.txt to the corpus folder"


def read_msp_podcast(
    corpus_dir: Path, labels: Path | None, audio: Path | None, label_range: tuple[float, float]
) -> Reading:
    """Read a corpus in the MSP-Podcast layout.

    Args:
        corpus_dir: the corpus folder.
        labels: consensus labels; None finds them in ``Labels/``, ``label/`` or the corpus folder.
        audio: the audio folder, searched recursively; None finds ``Audios/`` or ``Audio/``.
        label_range: lowest and highest valid label.

    Raises:
        UserError: labels or audio are not found or cannot be read, or no labeled row has a split.
    """
    label_path = labels or find_labels(corpus_dir)
    if label_path is None:
        raise UserError(
            f"no labels_consensus.csv (or labels_concensus.csv, or .json) in {corpus_dir}/Labels, "
            f"{corpus_dir}/label or {corpus_dir}; name the label file with --labels"
        )
    label_file = read_label_file(label_path)
    listing = list_audio(audio) if audio else _find_audio(corpus_dir)
    index = FileIndex(listing.files)
    partitions = _Partitions.read(corpus_dir, index)
    collector = RowCollector(label_range, partitions.split_of, _SPLIT_REMEDY)
    collector.add(label_file, index.locate)
    claimed = collector.paths
    reading = collector.finish()
    partitions.complete(reading, claimed)
    _add_ratings(reading, label_path.parent, label_range)
    reading.skipped += listing.skipped
    reading.warnings += listing.warnings
    reading.unclaimed = [file for file in listing.files if file.path not in claimed]
    return reading


def find_labels(corpus_dir: Path) -> Path | None:
    """The consensus labels of a corpus folder, or None."""
    for folder in (*children(corpus_dir, *_LABEL_FOLDERS), corpus_dir):
        for path in children(folder, *_LABEL_FILES):
            return path
    return None


def has_label_folder(corpus_dir: Path) -> bool:
    """Whether there is a folder with the name of the layout's label folder."""
    return any(path.is_dir() for path in children(corpus_dir, *_LABEL_FOLDERS))


def is_msp_podcast(labels: Path) -> bool:
    """Whether a label file has the columns of this layout."""
    if labels.suffix.lower() == ".json":
        return True
    names = column_names(labels)
    return "filename" in names and bool(names & {"emoact", "emoval", "emodom", "splitset", "emodetail"})


def children(folder: Path, *names: str) -> list[Path]:
    """Entries of a folder with the given lower-case names, in the order of the names, ignoring case."""
    found = [entry.name for entry in visible_entries(folder)]
    return [folder / spelling for name in names for spelling in found if spelling.lower() == name]


def audio_folders(corpus_dir: Path) -> list[Path]:
    """The folders where the layout keeps its audio, in order of preference."""
    return [path for path in children(corpus_dir, *_AUDIO_FOLDERS) if path.is_dir()]


def _find_audio(corpus_dir: Path) -> Listing:
    for folder in [*audio_folders(corpus_dir), corpus_dir]:
        listing = list_audio(folder)
        if listing.files:
            return listing
    raise UserError(
        f"no audio files in {corpus_dir}/Audios or {corpus_dir}/Audio; name their folder with --audio"
    )


def _add_ratings(reading: Reading, label_folder: Path, label_range: tuple[float, float]) -> None:
    """Add the ratings of individual annotators, which are for whole files, if they are next to the labels."""
    for path in children(label_folder, RATINGS_FILE)[:1]:
        records = reading.records
        whole = {row.utterance_id for row in records if row.start_s is None and row.end_s is None}
        found = read_ratings(path, whole, label_range)
        reading.ratings, reading.num_annotators = found.ratings, found.num_annotators
        reading.warnings += found.warnings


class _Partitions:
    """``Partitions.txt``: the split of every file, including files whose labels are withheld."""

    def __init__(self, path: Path | None = None) -> None:
        self._name = path.name if path else ""
        self._splits: dict[str, tuple[AudioFile, str]] = {}
        self._lost: list[Skipped] = []
        self._warnings: list[str] = []

    @classmethod
    def read(cls, corpus_dir: Path, index: FileIndex) -> _Partitions:
        for path in children(corpus_dir, _PARTITIONS):
            partitions = cls(path)
            text, partitions._warnings = read_text(path)
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    partitions._take(number, line, index)
            return partitions
        return cls()

    def split_of(self, file: AudioFile) -> str | None:
        """The split of a file, or None."""
        found = self._splits.get(file.path)
        return found[1] if found else None

    def complete(self, reading: Reading, claimed: set[str]) -> None:
        """Add the files without a label row, and report conflicts with the label rows."""
        missing = {skip.file for skip in reading.skipped}
        reading.skipped += [skip for skip in self._lost if skip.file not in missing]
        reading.warnings += self._warnings
        splits = {record.path: record for record in reading.records}
        disagreeing = []
        for path, (file, split) in self._splits.items():
            record = splits.get(path)
            if path not in claimed:
                claimed.add(path)
                reading.records.append(unlabeled_record(file, split))
            elif record is not None and record.split != split:
                disagreeing.append(f"{record.utterance_id} ({record.split}, not {split})")
        if disagreeing:
            where = f"{len(disagreeing)} files have another split in {self._name} than in the labels"
            reading.warnings.append(f"{where}; the labels were used: {name_some(disagreeing)}")

    def _take(self, number: int, line: str, index: FileIndex) -> None:
        delimiter = next((mark for mark in ";\t," if mark in line), None)
        split, _, name = (part.strip() for part in line.partition(delimiter or ";"))
        place = f"{self._name} line {number}"
        if not split or not name:
            self._warnings.append(f"{place} is not 'split; file' and was ignored: {line.strip()!r}")
            return
        try:
            file, split = index.locate(name), canonical_split(split)
        except RowProblem as problem:
            self._lost.append(Skipped(name, f"{problem}, but {place} lists it"))
            return
        except UserError as error:
            self._lost.append(Skipped(name, f"{place}: {error}"))
            return
        known = self._splits.setdefault(file.path, (file, split))
        if known[1] != split:
            self._warnings.append(
                f"{place} puts {name} in {split}, but an earlier line puts it in {known[1]}, which is used"
            )
