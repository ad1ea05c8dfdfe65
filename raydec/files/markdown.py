"""Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table without a final newline; line breaks in cells become spaces."""
    lines = [map(_escaped, header), ["---"] * len(header), *(map(_escaped, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(cell: str) -> str:
    return re.sub(r"[\\|]", r"\\\g<0>", " ".join(cell.split()))
