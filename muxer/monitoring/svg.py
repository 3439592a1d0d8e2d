"""SVG as text: elements with escaped attributes and texts.

Positions on the horizontal axis are percent, so that a picture fits any width while its letters keep their size.
"""

from __future__ import annotations

from html import escape


def svg_element(name: str, *children: str, **attributes: object) -> str:
    """Given a name, finished children and attributes, return an element. ``_`` in the name of an attribute stands for
    ``-``, at its end for nothing."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{told}>{''.join(children)}</{name}>" if children else f"<{name}{told}/>"


def svg_text(words: str, **attributes: object) -> str:
    """Given words and attributes, return a text."""
    return svg_element("text", escape(words), **attributes)


def svg_image(ident: str, title: str, description: str, *children: str, **attributes: object) -> str:
    """Given an id that no other picture of the page has, a title and what the picture tells, return an image that can be
    heard as well as seen."""
    named = (
        svg_element("title", escape(title), id=f"{ident}-title"),
        svg_element("desc", escape(description), id=f"{ident}-desc"),
    )
    heard = {"role": "img", "aria-labelledby": f"{ident}-title", "aria-describedby": f"{ident}-desc"}
    return svg_element("svg", *named, *children, **heard, **attributes)


def format_percent(value: float) -> str:
    """Given a share of the width, from 0 to 1, return it as a position, short and precise."""
    return f"{100 * value:.3f}".rstrip("0").rstrip(".") + "%"
