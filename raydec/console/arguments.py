"""Command line parsing that reports mistakes in one line, like every other user error."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from raydec.config_files import expand_home
from raydec.errors import UserError
from raydec.verbosity import set_verbosity


class Parser(ArgumentParser):
    """An argument parser with ``-v`` and ``-q``, which take effect when arguments are parsed.

    A mistake raises :class:`raydec.errors.UserError` instead of printing the usage.

    Args:
        options: passed to :class:`argparse.ArgumentParser`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        loudness = self.add_mutually_exclusive_group()
        loudness.add_argument("-v", "--verbose", action="store_true", help="print more: logs, speed, timings")
        loudness.add_argument("-q", "--quiet", action="store_true", help="print only results and problems")

    def parse_args(self, arguments: Sequence[str]) -> Namespace:  # type: ignore[override]
        """Parse a command line and set how much is printed.

        Raises:
            UserError: an argument is wrong.
        """
        if any(text == "" or (text.startswith("--") and text.endswith("=")) for text in arguments):
            raise UserError("an argument is empty (is a shell variable unset?); give it a value")
        options = super().parse_args(list(arguments))
        for name, value in vars(options).items():
            setattr(options, name, _home_expanded(value))
        set_verbosity(int(options.verbose) - int(options.quiet))
        return options

    def error(self, message: str) -> NoReturn:
        """Raise a :class:`UserError`; called by argparse."""
        raise UserError(f"{message}; see {self.prog} --help")


def _home_expanded(value: Any) -> Any:
    """Expand ``~`` in paths, which a shell does not do in ``--out=~/scores.csv``."""
    if isinstance(value, list):
        return [_home_expanded(item) for item in value]
    try:
        return Path(expand_home(str(value))) if isinstance(value, Path) else expand_home(value)
    except ValueError as error:
        raise UserError(f"{value}: {error}") from None


def natural(text: str) -> int:
    """The ``type`` of an argument that is a non-negative integer."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"must be a non-negative integer, not {text!r}")
    return int(text)
