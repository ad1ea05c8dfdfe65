"""One HTML file that needs no other: text, tables and interactive figures, in light, dark and on paper.

A page is sections of blocks. Strings are escaped when a block is rendered, unless they are :class:`Markup`.
Figures are plotly's; their colours are names of the page's CSS variables (``var(--c0)`` to ``var(--c9)``,
``var(--ink)`` and so on, see ``page.css``), which ``page.js`` looks up for the reader's colour scheme.
plotly.js is inlined once, and the page's security policy lets nothing else run and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Protocol, runtime_checkable

import plotly.graph_objects as go

NUM_COLORS = 10
_LONGEST_NAME = 60


class Markup(str):
    """HTML that is inserted as it is. Whoever makes one has escaped what came from data."""

    __slots__ = ()


@runtime_checkable
class Block(Protocol):
    """A part of a section."""

    def html(self) -> str:
        """The block as HTML, everything from data escaped."""
        ...


@dataclass(frozen=True)
class Choice:
    """A row of buttons above a figure, of which one is pressed; the first at the beginning.

    Attributes:
        key: what ``page.js`` calls it.
        label: shown before the buttons.
        options: what the buttons say.
    """

    key: str
    label: str
    options: tuple[str, ...]

    def html(self) -> str:
        """The buttons."""
        buttons = "".join(
            f'<button type="button" data-choice="{html.escape(self.key)}" data-option="{number}" '
            f'aria-pressed="{str(number == 0).lower()}">{html.escape(option)}</button>'
            for number, option in enumerate(self.options)
        )
        label = html.escape(self.label)
        return f'<div class="controls" role="group" aria-label="{label}"><span>{label}</span>{buttons}</div>'


@dataclass(frozen=True, eq=False)
class Plot:
    """An interactive figure.

    Attributes:
        name: unique on its page; letters, digits and hyphens.
        title: the heading.
        alternative: what the figure shows, for those who cannot see it.
        content: a plotly figure, or a mapping that ``page.js`` makes one of.
        caption: below the figure; str or :class:`Markup`.
        height_px: of the drawing.
        choices: rows of buttons that change what is drawn.
    """

    name: str
    title: str
    alternative: str
    content: go.Figure | dict[str, Any]
    caption: str = ""
    height_px: int = 320
    choices: tuple[Choice, ...] = ()

    def html(self) -> str:
        """See :class:`Block`."""
        title, alternative = html.escape(self.title), html.escape(self.alternative)
        return (
            f'<figure class="card" id="figure-{self.name}" data-plot '
            f'aria-labelledby="figure-{self.name}-title"><h3 id="figure-{self.name}-title">{title}</h3>'
            f"{''.join(choice.html() for choice in self.choices)}"
            f'<div class="canvas" role="img" aria-label="{alternative}" '
            f'style="height:{self.height_px}px"></div>'
            f"<figcaption>{escaped(self.caption)}</figcaption>"
            f'<script type="application/json">{_script_json(self._specification())}</script></figure>'
        )

    def _specification(self) -> dict[str, Any]:
        if isinstance(self.content, dict):
            return self.content
        specification = json.loads(self.content.to_json())
        # The page has its own template, in the reader's colours.
        specification["layout"].pop("template", None)
        return specification


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: the heading.
        header: of the columns.
        rows: cells; the first names its row. Columns of numbers are set right.
        caption: below the table.
        tall: whether it scrolls when it is long.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    tall: bool = False

    def html(self) -> str:
        """See :class:`Block`."""
        title = html.escape(self.title)
        numeric = [
            any(map(_is_number, column)) and all(_is_number(cell) or cell in ("", "–") for cell in column)
            for column in zip(*self.rows, strict=True)
        ] or [False] * len(self.header)
        head = "".join(
            f'<th scope="col"{_number_class(right)}>{escaped(cell)}</th>'
            for cell, right in zip(self.header, numeric, strict=True)
        )
        body = "".join(f"<tr>{self._cells(row, numeric)}</tr>" for row in self.rows)
        kind = "scroll tall" if self.tall else "scroll"
        scroll = f'<div class="{kind}" tabindex="0" role="region" aria-label="{title}">'
        caption = f'<p class="caption">{escaped(self.caption)}</p>' if self.caption else ""
        return (
            f'<div class="card fit"><h3>{title}</h3>{scroll}'
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{caption}</div>"
        )

    @staticmethod
    def _cells(row: Sequence[str], numeric: Sequence[bool]) -> str:
        """The first cell of a row names it."""
        first, *others = (escaped(cell) for cell in row)
        return f'<th scope="row"{_number_class(numeric[0])}>{first}</th>' + "".join(
            cell if cell.startswith("<td") else f"<td{_number_class(right)}>{cell}</td>"
            for cell, right in zip(others, numeric[1:], strict=True)
        )


@dataclass(frozen=True)
class Details:
    """Preformatted text behind a heading that opens and closes it."""

    title: str
    text: str

    def html(self) -> str:
        """See :class:`Block`."""
        return (
            f'<details class="card"><summary>{html.escape(self.title)}</summary>'
            f"<pre>{html.escape(self.text)}</pre></details>"
        )


@dataclass(frozen=True)
class Tile:
    """One number at the head of the page."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: the heading, and what the navigation says.
        intro: one paragraph; str or :class:`Markup`.
        rows: blocks side by side; where the page is too narrow for a row, it wraps.
    """

    title: str
    intro: str
    rows: Sequence[Sequence[Block]]

    @property
    def anchor(self) -> str:
        """Where links to this section lead."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def html(self) -> str:
        """The section as HTML."""
        intro = f'<p class="intro">{escaped(self.intro)}</p>' if self.intro else ""
        rows = "".join(
            f'<div class="row">{"".join(block.html() for block in row)}</div>' for row in self.rows if row
        )
        return (
            f'<section id="{self.anchor}" aria-labelledby="{self.anchor}-title">'
            f'<h2 id="{self.anchor}-title">{html.escape(self.title)}</h2>{intro}{rows}</section>'
        )


def render_page(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    notices: Sequence[str] = (),
    tiles: Sequence[Tile] = (),
    footer: str = "",
    may_compile: bool = False,
) -> str:
    """A whole page.

    Args:
        title: of the page.
        sections: in order.
        subtitle: below the title.
        notices: what nobody should overlook, above everything.
        tiles: the most important numbers.
        footer: at the end.
        may_compile: let scripts compile code at run time, which plotly's WebGL traces need (``parcoords``,
            ``scattergl``).
    """
    scripts = [_plotly_js(), _resource("page.js")]
    blocks = [block for section in sections for row in section.rows for block in row]
    names = [block.name for block in blocks if isinstance(block, Plot)]
    assert len(names) == len(set(names)), f"two figures have one name: {names}"
    shown_tiles = "".join(
        f'<div class="tile"><dt>{escaped(tile.label)}</dt>'
        f'<dd><span class="value">{escaped(tile.value)}</span>'
        f'<span class="detail">{escaped(tile.detail)}</span></dd></div>'
        for tile in tiles
    )
    links = "".join(
        f'<li><a href="#{section.anchor}">{html.escape(section.title)}</a></li>' for section in sections
    )
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f"<title>{html.escape(title)}</title>",
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts, may_compile)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<style>{_resource('page.css')}</style></head><body><header>",
            *(f'<p class="notice" role="note">{escaped(notice)}</p>' for notice in notices),
            f"<h1>{html.escape(title)}</h1>",
            f'<p class="subtitle">{escaped(subtitle)}</p>' if subtitle else "",
            f'<dl class="tiles">{shown_tiles}</dl>' if tiles else "",
            f'</header><nav aria-label="Sections"><ul>{links}</ul></nav><main>',
            "<noscript><p class='notice'>The figures need JavaScript; the tables do not.</p></noscript>",
            *(section.html() for section in sections),
            f"</main><footer>{escaped(footer)}</footer>",
            # At the end, so that the text is on the screen before megabytes of script are read.
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


def escaped(text: str) -> str:
    """Text as HTML; :class:`Markup` as it is."""
    return text if isinstance(text, Markup) else html.escape(text)


def shaded_cell(share: float, detail: str) -> Markup:
    """A cell of a :class:`Table` that shows a share, the darker the larger.

    Args:
        share: 0 to 1.
        detail: below the percentage.
    """
    style = f"--share:{share:.3f}"
    return Markup(f'<td class="shade" style="{style}">{share:.0%}<small>{html.escape(detail)}</small></td>')


def plot_text(value: object, longest: int = _LONGEST_NAME) -> str:
    """A string from data for a figure: plotly reads a few HTML tags and entities, these it shows as they are.

    Args:
        value: any value.
        longest: longer strings are cut.
    """
    text = str(value)
    return html.escape(text if len(text) <= longest else text[: longest - 1] + "…", quote=False)


def series_color(number: int) -> str:
    """The CSS variable of the colour of series ``number``; colours repeat after :data:`NUM_COLORS`."""
    return f"var(--c{number % NUM_COLORS})"


def _policy(scripts: Sequence[str], may_compile: bool) -> str:
    """Scripts run only if they are exactly these; nothing is loaded but what the file itself holds."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    compiling = " 'unsafe-eval'" if may_compile else ""
    return (
        f"default-src 'none'; script-src {hashes}{compiling}; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src data:; form-action 'none'; base-uri 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _script_json(document: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs()
    assert "</script" not in script.lower()
    return script


@cache
def _resource(name: str) -> str:
    return resources.files("raydec.pages").joinpath(name).read_text(encoding="utf-8")


def _number_class(right: bool) -> str:
    return ' class="number"' if right else ""


def _is_number(cell: str) -> bool:
    number = r"[-−+]?\d[\d,]*(\.\d+)?"
    return re.fullmatch(rf"{number}(%| to {number}| \({number}\))?", cell) is not None
