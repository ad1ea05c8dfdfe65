"""Self-contained HTML pages with text, tables and interactive figures, in light, dark and print colours.

A page is sections of blocks, rendered by ``page.html.jinja``. Strings are escaped unless they are
``markupsafe.Markup``. Figures are made with plotly; their colours are names of the page's CSS variables
(``var(--c0)`` to ``var(--c9)``, ``var(--ink)`` and so on, see ``page.css``), which ``page.js`` resolves for
the reader's colour scheme. plotly.js is inlined once. The page's security policy blocks every other script
and all requests.
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
    """A row of buttons above a figure, of which one is always pressed, initially the first.

    Attributes:
        key: its name in ``page.js``.
        label: shown before the buttons.
        options: the text of each button.
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
        alternative: text description for screen readers.
        content: a plotly figure, or a mapping from which ``page.js`` makes one.
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
    """A cell of a :class:`Table` that shows a share; larger shares are darker.

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
        rows: cells; the first is the heading of its row. Columns of numbers are aligned right.
        caption: below the table.
        tall: whether a long table scrolls.
        folded: whether it is hidden until the heading is pressed; it is not printed then.
    """

    kind: ClassVar = "table"
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | ShadedCell]]
    caption: str = ""
    tall: bool = False
    folded: bool = False

    @property
    def is_numeric(self) -> list[bool]:
        """For each column, whether it holds only numbers and gaps, and at least one number."""
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
        title: the heading, also shown in the navigation.
        intro: one paragraph.
        rows: blocks side by side; a row wraps if the page is too narrow.
    """

    title: str
    intro: str
    rows: Sequence[Sequence[Block]]

    @property
    def anchor(self) -> str:
        """The id of the section, the target of links to it."""
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
    """Render a whole page.

    Args:
        title: of the page.
        sections: in order.
        subtitle: below the title.
        notices: important warnings, at the top of the page.
        tiles: the most important numbers.
        footer: at the end.
        may_compile: allow scripts to compile code at run time; plotly's WebGL traces (``parcoords``,
            ``scattergl``) need it.
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
    """A string from data, escaped for a figure because plotly interprets a few HTML tags and entities.

    Args:
        value: any value.
        longest: maximal number of characters; longer strings are cut.
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
    """The Content-Security-Policy: only exactly these scripts run, and nothing is loaded from elsewhere."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    compiling = " 'unsafe-eval'" if may_compile else ""
    return (
        f"default-src 'none'; script-src {hashes}{compiling}; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src data:; form-action 'none'; base-uri 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _script_json(document: Any) -> Markup:
    """JSON in which no text can close the surrounding script element."""
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
