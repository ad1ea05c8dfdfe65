"""Command lines whose mistakes read like every other user error: one line."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from raydec.config_files import expand_home
from raydec.errors import UserError
from raydec.verbosity import set_verbosity


class Parser(ArgumentParser):
    """An argument parser with ``-v`` and ``-q``, which take effect as soon as they are read.

    A mistake raises :class:`raydec.errors.UserError` instead of printing the usage.

    Args:
        options: of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        loudness = self.add_mutually_exclusive_group()
        loudness.add_argument(
            "-v", "--verbose", action="store_true", help="say more: logs, speed, where the time went"
        )
        loudness.add_argument(
            "-q", "--quiet", action="store_true", help="say nothing but results and what went wrong"
        )

    def parse_args(self, arguments: Sequence[str]) -> Namespace:  # type: ignore[override]
        """Read a command line and set how much is printed.

        Raises:
            UserError: naming what is wrong.
        """
        if any(text == "" or (text.startswith("--") and text.endswith("=")) for text in arguments):
            raise UserError("an argument is empty (is a variable of the shell unset?); give it a value")
        options = super().parse_args(list(arguments))
        for name, value in vars(options).items():
            setattr(options, name, _at_home(value))
        set_verbosity(int(options.verbose) - int(options.quiet))
        return options

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise UserError(f"{message}; {self.prog} --help explains")


def _at_home(value: Any) -> Any:
    """Paths with their ``~`` written out, which a shell leaves in ``--out=~/scores.csv``."""
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    try:
        return Path(expand_home(str(value))) if isinstance(value, Path) else expand_home(value)
    except ValueError as error:
        raise UserError(f"{value}: {error}") from None


def natural(text: str) -> int:
    """The ``type`` of an argument that is a whole number from 0 on."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)
