"""A parser for the elements and texts of a page of the muxer."""

from __future__ import annotations

from html.parser import HTMLParser


class PageReader(HTMLParser):
    """The elements, their attributes and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style":
            self.texts.append(data)

    @property
    def page_text(self) -> str:
        return " ".join(" ".join(self.texts).split())
