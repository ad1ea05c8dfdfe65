"""Shared by all entry points: consoles, logging, and exit codes.

0 success, 2 user error (one line on stderr), 1 our fault (traceback), 130 interrupted (work kept).
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from raydec.errors import FULL_DISK, DivergedError, UserError
from raydec.learning.host import OPENMP_ENVIRONMENT
from raydec.verbosity import set_verbosity, verbosity

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str, *, verbose: bool = False) -> None:
    """Print an informational line, which ``-q`` suppresses.

    Args:
        text: the line.
        verbose: print it with ``-v`` only.
    """
    if verbosity() >= (1 if verbose else 0):
        out.print(text, markup=False)


@contextmanager
def progress_output() -> Iterator[None]:
    """Mark the output of the block as progress, which ``-q`` suppresses."""
    before = out.quiet, err.quiet
    out.quiet = err.quiet = verbosity() < 0
    try:
        yield
    finally:
        out.quiet, err.quiet = before


def waiting(text: str) -> AbstractContextManager[object]:
    """A spinner on a terminal for the duration of the block; nothing in a pipe or with ``-q``."""
    return err.status(text) if _shows_progress() else nullcontext()


def _shows_progress() -> bool:
    return err.is_terminal and verbosity() >= 0


def run_entry_point(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> int:
    """Run ``main(arguments)`` and convert its exceptions into an exit status.

    Args:
        main: the verb; it takes the command line without the program name.
        arguments: defaults to ``sys.argv[1:]``.
    """
    # Before torch loads OpenMP, because this process may train.
    for name, value in OPENMP_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    set_verbosity(0)
    _replace_unprintable()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        try:
            main(sys.argv[1:] if arguments is None else arguments)
        finally:
            # Python itself would do this after the exit status is decided.
            sys.stdout.flush()
    except UserError as error:
        err.print(f"error: {' '.join(str(error).split())}", markup=False)
        return error.exit_status
    except DivergedError as error:
        err.print(f"error: {' '.join(str(error).split())}", markup=False)
        return 1
    except KeyboardInterrupt:
        err.print("interrupted; finished work is kept, run the same command again to resume", markup=False)
        return 130
    except BrokenPipeError:
        _forget_output()
        return 0
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        _forget_output()
        where = f"to write {error.filename}" if error.filename else "for standard output"
        err.print(f"error: no space left {where}; free some and run the same command again", markup=False)
        return UserError.exit_status
    return 0


def _forget_output() -> None:
    """Drop what standard output did not accept; otherwise Python writes it again at exit, with an error."""
    with suppress(io.UnsupportedOperation), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _replace_unprintable() -> None:
    """Print ``?`` for characters missing in the terminal's encoding, such as η in Latin-1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def progress_bar(unit: str) -> Progress:
    """A progress bar on a terminal; nothing in a pipe or a log file."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=err,
        disable=not _shows_progress(),
    )
