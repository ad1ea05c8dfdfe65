"""Command lines whose mistakes read like every other user error: one line."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import NoReturn

from raydec.errors import UserError


class Parser(ArgumentParser):
    """An argument parser that raises :class:`raydec.errors.UserError` instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise UserError(f"{message}; {self.prog} --help explains")
