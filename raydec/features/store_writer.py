"""The first and the last step of making a feature store: checking the folder, and merging the shards.

Shards (:mod:`raydec.features.shards`) are merged in order. ``store.json`` is written last; until then the
folder is an unfinished store.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydec.corpus.table import Corpus, Skipped, name_some
from raydec.errors import UserError
from raydec.features.front_end import FrontEnd
from raydec.features.shards import ShardPlan, ShardResult, finished_shard
from raydec.features.store import (
    PLACE_FIELDS,
    SKIPPED_FILE,
    STORE_FILE,
    UTTERANCES_FILE,
    FeatureStore,
    read_store_file,
)
from raydec.features.store_content import corpus_differences, corpus_entry, lacks_ratings, store_content
from raydec.files.atomic import (
    TEMPORARY_PREFIX,
    file_sha256,
    full_disk_explained,
    write_arrow,
    write_text,
)

WARNINGS_FILE = "warnings.csv"
_NOTE_FILE = re.compile(r"frames-\d{5,}\.json")
_OWN_FILE = re.compile(
    rf"frames-\d{{5,}}\.(arrow|json)|{re.escape(TEMPORARY_PREFIX)}.*"
    rf"|{STORE_FILE}|{UTTERANCES_FILE}|{SKIPPED_FILE}|{WARNINGS_FILE}"
)


@dataclass(frozen=True)
class StoreSummary:
    """The content of a finished store, and messages for the user.

    Attributes:
        path: the store's folder.
        splits: per split, ``utterances``, ``labeled``, ``frames`` and ``duration_s``.
        ratings: ``utterances`` rated by individual ``annotators``, and the number of ``ratings``; empty
            without ratings.
        skipped: files and rows that the corpus reader and the decoder skipped, with reasons.
        warnings: ``(utterance, warning)`` of utterances that were stored in spite of a problem.
        notices: remarks on the store as a whole, one line each.
        was_complete: whether the store was finished already.
    """

    path: Path
    splits: dict[str, dict[str, int | float]]
    ratings: dict[str, int]
    skipped: tuple[Skipped, ...]
    warnings: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]
    was_complete: bool = False


def open_folder(folder: Path) -> None:
    """Create the store's folder, and refuse one with other files.

    Raises:
        UserError: the folder cannot be created, or it has files that do not belong to a feature store.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot use {folder} as feature store: {error.strerror or error}") from None
    foreign = [name for name in names if not _OWN_FILE.fullmatch(name) and not name.startswith(".")]
    if foreign:
        raise UserError(
            f"{folder} contains files that do not belong to a feature store: {name_some(foreign)}; "
            "name a new folder"
        )


def clear_folder(folder: Path) -> None:
    """Remove every file of a store, ``store.json`` first, so that a partial store never looks finished."""
    (folder / STORE_FILE).unlink(missing_ok=True)
    for entry in folder.iterdir():
        if _OWN_FILE.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def completed_store(
    folder: Path, corpus: Corpus, plans: Sequence[ShardPlan], front_end: FrontEnd
) -> StoreSummary | None:
    """The summary of a finished store, or None if it is not finished.

    Raises:
        UserError: the folder has a finished store of another corpus or another front end (the
            message names the differences), or a damaged one.
    """
    if not (folder / STORE_FILE).exists():
        return None
    FeatureStore.open(folder, front_end)
    content = read_store_file(folder)
    entry = corpus_entry(corpus, plans)
    differences = corpus_differences(content["corpus"], entry)
    if differences:
        raise UserError(
            f"{folder} was prepared from another state of the corpus: {'; '.join(differences)}; "
            "use --restart to rebuild it, or name another folder"
        )
    skipped = tuple(Skipped(*row) for row in _read_pairs(folder / SKIPPED_FILE))
    warnings = tuple(_read_pairs(folder / WARNINGS_FILE))
    counts = content["counts"]
    notices = list(content["notices"])
    if lacks_ratings(content["corpus"], entry):
        notices.append("the store has no annotators' ratings, but the corpus has; --restart stores them")
    return _summary(folder, counts, skipped, warnings, notices, was_complete=True)


def finish_store(
    folder: Path, corpus: Corpus, plans: Sequence[ShardPlan], front_end: FrontEnd
) -> StoreSummary:
    """Merge all shards, in order, into a finished store.

    Raises:
        UserError: there is no usable utterance, a shard is not visible here, or the disk is full.
    """
    with full_disk_explained(folder):
        results = [_required(plan, folder, front_end) for plan in plans]
        skipped = corpus.skipped + tuple(skip for result in results for skip in result.skipped)
        warnings = tuple(warning for result in results for warning in result.warnings)
        _write_pairs(folder / SKIPPED_FILE, ("file", "reason"), ((s.file, s.reason) for s in skipped))
        _refuse_empty(corpus, results, folder)
        if warnings:
            _write_pairs(folder / WARNINGS_FILE, ("file", "warning"), warnings)
        table = _utterance_table(corpus.table, results)
        write_arrow(folder / UTTERANCES_FILE, table)
        content = store_content(corpus, plans, front_end, results, table)
        content["utterances"] = {"file": UTTERANCES_FILE, "sha256": file_sha256(folder / UTTERANCES_FILE)}
        write_text(folder / STORE_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _remove_leftovers(folder, plans)
    return _summary(folder, content["counts"], skipped, warnings, content["notices"])


def _summary(
    folder: Path,
    counts: dict[str, Any],
    skipped: tuple[Skipped, ...],
    warnings: tuple[tuple[str, str], ...],
    notices: Sequence[str],
    was_complete: bool = False,
) -> StoreSummary:
    ratings = counts.get("ratings", {})
    return StoreSummary(folder, counts["splits"], ratings, skipped, warnings, tuple(notices), was_complete)


def _required(plan: ShardPlan, folder: Path, front_end: FrontEnd) -> ShardResult:
    result = finished_shard(plan, folder, front_end)
    if result is None:
        raise UserError(
            f"{plan.frames_file} was written, but this machine does not see it in {folder}; "
            "name a folder on storage that all nodes of the cluster share"
        )
    return result


def _refuse_empty(corpus: Corpus, results: Sequence[ShardResult], folder: Path) -> None:
    if not any(result.stored for result in results):
        num_skipped = len(corpus.skipped) + sum(len(result.skipped) for result in results)
        raise UserError(
            f"no usable audio in corpus {corpus.name}: {num_skipped} files or rows were skipped; "
            f"see {folder / SKIPPED_FILE} for the reasons"
        )


def _utterance_table(table: pa.Table, results: Sequence[ShardResult]) -> pa.RecordBatch:
    """The corpus rows that could be decoded, with the location of their frames."""
    stored = [(result.index, utterance) for result in results for utterance in result.stored]
    kept = table.take(pa.array([utterance.row for _, utterance in stored], pa.int64()))
    places = {
        "num_frames": [utterance.num_frames for _, utterance in stored],
        "shard": [index for index, _ in stored],
        "first_frame": [utterance.first_frame for _, utterance in stored],
        "duration_s": [utterance.duration_s for _, utterance in stored],
        "sha256": [utterance.sha256 for _, utterance in stored],
    }
    for field in PLACE_FIELDS:
        kept = kept.append_column(field, pa.array(places[field.name], field.type))
    return kept.combine_chunks().to_batches()[0]


def _write_pairs(path: Path, header: tuple[str, str], rows: Iterable[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [(first, second) for first, second in list(csv.reader(file))[1:]]


def _remove_leftovers(folder: Path, plans: Sequence[ShardPlan]) -> None:
    """Remove notes, partial files of killed writers, and frames of an earlier, larger plan."""
    wanted = {plan.frames_file for plan in plans}
    for entry in folder.iterdir():
        is_stale = entry.name.startswith("frames-") and entry.suffix == ".arrow" and entry.name not in wanted
        if is_stale or _NOTE_FILE.fullmatch(entry.name) or entry.name.startswith(TEMPORARY_PREFIX):
            entry.unlink(missing_ok=True)
