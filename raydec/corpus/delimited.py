"""Reads delimited text with unknown encoding, unknown delimiter and ragged rows."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raydec.corpus.table import Skipped
from raydec.errors import UserError

_DELIMITERS = (",", ";", "\t", "|")
# Number of lines in which the header is searched, below titles and comments.
_MAX_BEFORE = 20
_NO_DELIMITER = "\x1f"


@dataclass(frozen=True)
class TextLines:
    """The lines of a text file.

    Attributes:
        path: the file.
        header: its first line with content; None if there is none.
        body: the lines after it.
        num_before: number of lines up to and including the header.
        warnings: about guesses.
    """

    path: Path
    header: str | None
    body: list[str]
    num_before: int
    warnings: list[str]


def read_text(path: Path) -> tuple[str, list[str]]:
    """The content of a text file in any encoding, and a warning if the encoding was guessed.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return raw.decode(_unicode_encoding(raw)).removeprefix("\ufeff"), []
    except UnicodeDecodeError:
        return raw.decode("latin-1"), [f"{path.name} is not valid UTF-8; it was read as Latin-1"]


def read_lines(path: Path, is_header: Callable[[str], bool]) -> TextLines:
    """The lines of a delimited text file, with its header found below any title or comments.

    Args:
        path: the file.
        is_header: whether a line looks like the header.

    Raises:
        UserError: the file cannot be read.
    """
    text, warnings = read_text(path)
    # Not str.splitlines, which also splits at characters that Latin-1 text may contain.
    lines = io.StringIO(text, newline=None).readlines()
    # Excel may write a first line that names the delimiter.
    content = [i for i, line in enumerate(lines) if line.strip() and not line.lower().startswith("sep=")]
    if not content:
        return TextLines(path, None, [], len(lines), warnings)
    first = next((i for i in content if not lines[i].startswith("#")), content[0])
    place = next((i for i in content[:_MAX_BEFORE] if is_header(lines[i])), first)
    if place != content[0]:
        warnings = [*warnings, f"{path.name}: lines before its header, line {place + 1}, were ignored"]
    return TextLines(path, lines[place], lines[place + 1 :], place + 1, warnings)


def find_delimiter(header: str, is_known: Callable[[str], bool]) -> str:
    """The delimiter that splits a header into the most known names; on ties, into the most cells."""

    def score(delimiter: str) -> tuple[int, int]:
        cells = split_header(header, delimiter)
        return sum(map(is_known, cells)), len(cells)

    best = max(_DELIMITERS, key=score)
    # With one column, rows are not split: it may be a plain list of file names, which may contain commas.
    return best if score(best)[1] > 1 else _NO_DELIMITER


def split_header(header: str, delimiter: str) -> list[str]:
    """The names in a header line."""
    return [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True))]


def split_rows(
    text: TextLines, delimiter: str, width: int
) -> tuple[list[list[str]], list[int], list[Skipped]]:
    """Split the lines after the header into rows of ``width`` cells; blank rows are ignored.

    Returns:
        The rows, the number of the first line of each, and the rows with more or fewer cells.

    Raises:
        UserError: a quote is not closed.
    """
    reader = csv.reader(text.body, delimiter=delimiter, skipinitialspace=True)
    rows: list[list[str]] = []
    numbers: list[int] = []
    skipped: list[Skipped] = []
    number = text.num_before + 1
    try:
        for row in reader:
            end = text.num_before + reader.line_num
            if end > number:
                _refuse_open_quote(text, number, end, len(row) == width, delimiter)
            # Spreadsheets may add empty cells at the end of a row.
            if len(row) == width or (len(row) > width and not any(map(str.strip, row[width:]))):
                rows.append(row[:width])
                numbers.append(number)
            elif any(map(str.strip, row)):
                reason = (
                    f"{len(row)} cells, but the header has {width}; quote cells that contain the delimiter"
                )
                skipped.append(Skipped(f"{text.path.name} line {number}", reason))
            number = end + 1
    except csv.Error as error:
        raise UserError(
            f"{text.path} line {number} is not delimited text: {error}; close the quote"
        ) from None
    return rows, numbers, skipped


def _unicode_encoding(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = raw[:2048]
    # Label files are mostly ASCII, so in UTF-16 without a byte order mark every other byte is zero.
    if head[1::2].count(0) > len(head) // 4:
        return "utf-16-le"
    return "utf-16-be" if head[0::2].count(0) > len(head) // 4 else "utf-8"


def _refuse_open_quote(text: TextLines, start: int, end: int, fits: bool, delimiter: str) -> None:
    """Refuse a quoted cell that contains whole rows, because these would be lost silently.

    Args:
        text: the file.
        start: first line of a row that spans several lines.
        end: its last line.
        fits: whether the row has as many cells as the header.
        delimiter: between cells.
    """
    assert text.header is not None
    swallowed = text.body[start - text.num_before : end - text.num_before]
    num_delimiters = text.header.count(delimiter)
    if not fits or any(line.count(delimiter) >= num_delimiters for line in swallowed):
        raise UserError(f"{text.path} line {start}: a quoted cell spans several lines; close the quote")
