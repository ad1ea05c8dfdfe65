"""One HTML file that needs no other: text, tables and interactive figures, in light, dark and on paper.

A page is sections of blocks, rendered by ``page.html.jinja``. Strings are escaped unless they are
``markupsafe.Markup``. Figures are plotly's; their colours are names of the page's CSS variables
(``var(--c0)`` to ``var(--c9)``, ``var(--ink)`` and so on, see ``page.css``), which ``page.js`` looks up for
the reader's colour scheme. plotly.js is inlined once, and the page's security policy lets nothing else run
and nothing be fetched.
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
from typing import Any, ClassVar

import plotly.graph_objects as go
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

NUM_COLORS = 10
_LONGEST_NAME = 60
_NUMBER = r"[-−+]?\d[\d,]*(\.\d+)?"


@dataclass(frozen=True)
class Buttons:
    """A row of buttons above a figure, of which one is pressed; the first at the beginning.

    Attributes:
        key: what ``page.js`` calls it.
        label: shown before the buttons.
        options: what the buttons say.
    """

    key: str
    label: str
    options: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Plot:
    """An interactive figure.

    Attributes:
        name: unique on its page; letters, digits and hyphens.
        title: the heading.
        alternative: what the figure shows, for those who cannot see it.
        content: a plotly figure, or a mapping that ``page.js`` makes one of.
        caption: below the figure.
        height_px: of the drawing.
        buttons: rows of buttons that change what is drawn.
    """

    kind: ClassVar = "plot"
    name: str
    title: str
    alternative: str
    content: go.Figure | dict[str, Any]
    caption: str = ""
    height_px: int = 320
    buttons: tuple[Buttons, ...] = ()

    @property
    def specification(self) -> dict[str, Any]:
        """What ``page.js`` draws."""
        if isinstance(self.content, dict):
            return self.content
        specification = json.loads(self.content.to_json())
        # The page has its own template, in the reader's colours.
        specification["layout"].pop("template", None)
        return specification


@dataclass(frozen=True)
class ShadedCell:
    """A cell of a :class:`Table` that shows a share, the darker the larger.

    Attributes:
        share: 0 to 1.
        detail: below the percentage.
    """

    share: float
    detail: str


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

    kind: ClassVar = "table"
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | ShadedCell]]
    caption: str = ""
    tall: bool = False

    @property
    def is_numeric(self) -> list[bool]:
        """Whether each column holds numbers, and nothing else but gaps."""
        columns = zip(*self.rows, strict=True)
        return [
            any(map(_is_number, column)) and all(_is_number(cell) or cell in ("", "–") for cell in column)
            for column in columns
        ] or [False] * len(self.header)


@dataclass(frozen=True)
class Details:
    """Preformatted text behind a heading that opens and closes it."""

    kind: ClassVar = "details"
    title: str
    text: str


Block = Plot | Table | Details
"""A part of a section; the template has a macro for each ``kind``."""


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
        intro: one paragraph.
        rows: blocks side by side; where the page is too narrow for a row, it wraps.
    """

    title: str
    intro: str
    rows: Sequence[Sequence[Block]]

    @property
    def anchor(self) -> str:
        """Where links to this section lead."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


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
    return _template().render(
        title=title,
        sections=sections,
        subtitle=subtitle,
        notices=notices,
        tiles=tiles,
        footer=footer,
        policy=_policy(scripts, may_compile),
        style=_resource("page.css"),
        scripts=scripts,
    )


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


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["script_json"] = _script_json
    return environment.from_string(_resource("page.html.jinja").lstrip())


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


def _script_json(document: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


@cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs()
    assert "</script" not in script.lower()
    return script


@cache
def _resource(name: str) -> str:
    return resources.files("raydec.pages").joinpath(name).read_text(encoding="utf-8")


def _is_number(cell: str | ShadedCell) -> bool:
    if isinstance(cell, ShadedCell):
        return False
    return re.fullmatch(rf"{_NUMBER}(%| to {_NUMBER}| \({_NUMBER}\))?", cell) is not None
