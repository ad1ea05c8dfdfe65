"""The page of ``raydec.predict --plot``: a timeline of each file, made from the finished rows."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydec.errors import UserError
from raydec.inference.predicted_table import PredictedTable
from raydec.pages.html_page import Section, Table, Tile, render_page
from raydec.pages.page_file import check_page_path, write_page
from raydec.pages.timeline_file import FileRows, file_blocks
from raydec.pages.timeline_tables import class_colors, cluster_colors, error_table, file_table
from raydec.version import __version__

MAX_FILES = 50
MAX_ROWS = 10_000
"""Rows that are drawn, over all files."""
_SUFFIXES = (".html", ".htm")

logger = logging.getLogger(__name__)


def check_timeline(plot: str | Path, window_s: float | None, segments: str | None) -> Path:
    """The path of the page. Call it first, so that a mistake is found before minutes of predictions.

    Args:
        plot: the file.
        window_s: length of the windows; None without windows.
        segments: how files are cut at pauses; None if they are not.

    Raises:
        UserError: files have one row each, or no page can be written there.
    """
    path = Path(plot)
    if window_s is None and segments is None:
        raise UserError(
            f"--plot {path} draws rows over time, but each file has one; add --windows SECONDS or "
            "--segments energy"
        )
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"--plot {path}: the name must end in .html")
    return check_page_path(path, "timeline", "--plot")


def write_timeline(predicted: PredictedTable, path: Path) -> Path:
    """Write the page atomically; the log says what was left out.

    Args:
        predicted: the finished rows.
        path: the file.

    Returns:
        ``path``.

    Raises:
        UserError: the file cannot be written.
    """
    table = predicted.read()
    files, num_files = drawn_files(table)
    notices = _notices(predicted.path.name, len(files), num_files)
    for notice in notices:
        logger.warning("%s: %s", path, notice)
    return write_page(path, _page(predicted, table, files, notices), "timeline", "--plot")


def drawn_files(table: pa.Table) -> tuple[list[FileRows], int]:
    """The first files that have a prediction, and how many such files there are."""
    numbers = table["file"].combine_chunks().dictionary_encode()
    codes = numbers.indices.to_numpy()
    is_timed = pc.and_(pc.is_valid(table["start"]), pc.is_valid(table["end"]))
    is_scored = pc.and_(is_timed, pc.is_null(table["error"])).to_numpy()
    # Codes are in order of first appearance.
    found = np.unique(codes[is_scored])
    drawn = found[:MAX_FILES]
    is_drawn = np.isin(codes, drawn) & is_timed.to_numpy()
    rows, codes = table.filter(pa.array(is_drawn)), codes[is_drawn]
    order = np.lexsort((rows["start"].to_numpy(), codes))
    bounds = pairwise([0, *np.searchsorted(codes[order], drawn, side="right").tolist()])
    rows = rows.take(pa.array(order))
    names = numbers.dictionary.take(pa.array(drawn)).to_pylist()
    files = [
        FileRows(name, rows.slice(start, end - start))
        for name, (start, end) in zip(names, bounds, strict=True)
    ]
    return files, len(found)


def _notices(source: str, num_drawn: int, num_files: int) -> list[str]:
    if num_drawn == num_files:
        return []
    return [
        f"only the first {num_drawn:,} of {num_files:,} files are drawn; the rows of the other "
        f"{num_files - num_drawn:,} are in {source}"
    ]


def _page(predicted: PredictedTable, table: pa.Table, files: list[FileRows], notices: list[str]) -> str:
    most = MAX_ROWS // max(1, len(files))
    sections = [_overview(predicted, table, files)] if files else []
    if files:
        blocks = file_blocks(files, predicted.outputs, predicted.label_range, most)
        sections.append(Section("Timelines", _intro(predicted), blocks))
    errors = error_table(table)
    if errors is not None:
        sections.append(Section("Without a prediction", "", [[errors]]))
    num_failed = table.num_rows - table["error"].null_count
    return render_page(
        f"Timeline of {predicted.path.name}",
        sections,
        notices=[f"{notice[0].upper()}{notice[1:]}." for notice in notices],
        tiles=[
            Tile("files", f"{pc.count_distinct(table['file']).as_py():,}", f"{len(files):,} drawn"),
            Tile("rows", f"{table.num_rows:,}", f"{num_failed:,} without a prediction"),
        ],
        footer=f"Made by raydec {__version__}. This file is self-contained and loads nothing from elsewhere.",
    )


def _overview(predicted: PredictedTable, table: pa.Table, files: list[FileRows]) -> Section:
    outputs = predicted.outputs
    scored = table.filter(pc.is_null(table["error"]))
    colors: list[Table] = [class_colors(scored, group, names) for group, names in outputs.classes.items()]
    if scored["cluster"].null_count < len(scored):
        colors.insert(0, cluster_colors(scored, outputs.attributes))
    return Section(
        "Overview",
        "Means over rows. Colours are those of the timelines.",
        [[file_table(files, outputs)], colors],
    )


def _intro(predicted: PredictedTable) -> str:
    outputs = predicted.outputs
    told = ["Each step of a line is a row of the table: a window or a stretch of speech."]
    if outputs.attributes:
        scale = "" if predicted.label_range is None else " ({:g} to {:g})".format(*predicted.label_range)
        told.append(f"Scores are in the scale of the training labels{scale}.")
    told.append(
        "Windows that overlap meet halfway between their centres. Drag to zoom, double-click to go back."
    )
    return " ".join(told)
