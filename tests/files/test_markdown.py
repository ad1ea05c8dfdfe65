"""Markdown tables, read back by another program."""

from __future__ import annotations

from markdown_it import MarkdownIt

from raydec.files.markdown import markdown_table

CELLS = ["plain", "a|b", "a\\", "a\\|b", "\\\\|", "", "two\nlines", "– ± 95%"]


def test_a_parser_finds_every_cell() -> None:
    text = markdown_table(["text", "number"], [[cell, "1"] for cell in CELLS])
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    cells = [
        "".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"
    ]
    assert cells[:2] == ["text", "number"]
    assert cells[2::2] == [" ".join(cell.split()) for cell in CELLS] and set(cells[3::2]) == {"1"}
