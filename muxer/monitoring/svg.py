"""SVG as text, escaped. Horizontal positions are percent: a drawing fits any width while its text keeps its size."""

from __future__ import annotations

from html import escape


def svg_element(name: str, *children: str, **attributes: object) -> str:
    """Return an element with finished `children`. `_` in a name becomes `-`; None leaves an attribute out."""
    rendered = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{rendered}>{''.join(children)}</{name}>" if children else f"<{name}{rendered}/>"


def svg_text(words: str, **attributes: object) -> str:
    """Return a text element."""
    return svg_element("text", escape(words), **attributes)


def svg_image(ident: str, title: str, description: str, *children: str, **attributes: object) -> str:
    """Return an image with texts for screen readers. `ident` is a prefix for ids, unique on the page."""
    texts = (
        svg_element("title", escape(title), id=f"{ident}-title"),
        svg_element("desc", escape(description), id=f"{ident}-desc"),
    )
    labels = {"role": "img", "aria-labelledby": f"{ident}-title", "aria-describedby": f"{ident}-desc"}
    return svg_element("svg", *texts, *children, **labels, **attributes)


def format_percent(value: float) -> str:
    """Return a fraction of the width, from 0 to 1, as percent."""
    return f"{100 * value:.3f}".rstrip("0").rstrip(".") + "%"
