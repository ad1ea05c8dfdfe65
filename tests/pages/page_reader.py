"""The content of a page without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any


class Elements(HTMLParser):
    """Every element of a document with its attributes and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1][2].append(data)

    def named(self, tag: str) -> Iterator[tuple[dict[str, str | None], str]]:
        return ((attributes, "".join(texts)) for name, attributes, texts in self.found if name == tag)


def specifications(text: str) -> dict[str, Any]:
    """The figures of a page by name."""
    elements = Elements(text)
    names = [str(a["id"]).removeprefix("figure-") for a, _ in elements.named("figure")]
    documents = [json.loads(body) for a, body in elements.named("script") if a.get("type")]
    return dict(zip(names, documents, strict=True))
