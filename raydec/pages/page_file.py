"""The file of a page: its path is checked before long work, and it is written atomically."""

from __future__ import annotations

import os
from pathlib import Path

from raydec.errors import UserError
from raydec.files.atomic import write_text


def check_page_path(path: Path, what: str, option: str) -> Path:
    """The path, if a page can be written there. Call it first, before minutes of predictions.

    Args:
        path: the file.
        what: the page, for messages.
        option: the command's option for the path.

    Raises:
        UserError: no file can be written there.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise UserError(f"cannot write {what} {path}: it is a folder; name a file with {option}")
    if not folder.is_dir():
        raise UserError(f"cannot write {what} {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise UserError(
            f"cannot write {what} {path}: no permission to write to {folder}; name another with {option}"
        )
    return path


def write_page(path: Path, text: str, what: str, option: str) -> Path:
    """Write a page atomically, and return its path.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"cannot write {what} {path}: {error.strerror or error}; name another with {option}"
        ) from None
    return path
