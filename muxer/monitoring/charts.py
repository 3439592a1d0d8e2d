"""The charts of the last 24 hours as SVG. Pure.

The picture's width is the plot; the numbers of the axis stand in the margin to its left, which the style sheet leaves free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from muxer.monitoring.svg import element, percent, picture, text
from muxer.monitoring.words import clock

HEIGHT = 120
TOP, FOOT = 8, 22
TICK_HOURS = 6
HOUR = 3600
_SPANS = (60, 300, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 12 * 3600, 86_400, 2 * 86_400, 7 * 86_400)


@dataclass(frozen=True)
class Series:
    """Numbers for equal parts of the time, None where nobody knows; ``kind`` is its class in the style sheet."""

    kind: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Frame:
    """What all charts of a page share: when the axis begins and ends, in epoch seconds."""

    begin: float
    end: float

    def at(self, moment: float) -> str:
        """Return where a moment lies."""
        return percent((moment - self.begin) / (self.end - self.begin))


def nice(most: float) -> float:
    """Given the largest number, return a round one that is no smaller and can be halved: the top of the axis."""
    if most <= 2:
        return 2.0
    scale = 10.0 ** math.floor(math.log10(most))
    tops = (step * scale for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10))
    return next(top for top in tops if top >= most and top % 2 == 0)


def nice_span(most: float) -> float:
    """Given the longest time in seconds, return one for the top of the axis that people use."""
    return float(next((one for one in _SPANS if one >= most), math.ceil(most / _SPANS[-1]) * _SPANS[-1]))


def bars(ident: str, title: str, description: str, frame: Frame, stack: Sequence[Series]) -> str:
    """Given series of equal length, return a chart of bars, the later series on top of the earlier."""
    count = len(stack[0].values)
    top = nice(max((sum(one.values[i] or 0 for one in stack) for i in range(count)), default=0))
    drawn = []
    for index in range(count):
        floor = 0.0
        for series in stack:
            value = series.values[index] or 0
            if value:
                high, low = _y(floor + value, top), _y(floor, top)
                place = {"x": percent((index + 0.12) / count), "width": percent(0.76 / count)}
                drawn.append(element("rect", **place, y=f"{high:.1f}", height=f"{low - high:.1f}", class_=series.kind))
            floor += value
    return _chart(ident, title, description, frame, top, "".join(drawn), _number)


def area(
    ident: str,
    title: str,
    description: str,
    frame: Frame,
    stack: Sequence[Series],
    top: float,
    label: Callable[[float], str] | None = None,
) -> str:
    """Given series of equal length, return a chart of areas, the later series on top of the earlier; where a value is None,
    nothing is drawn. ``label`` writes the numbers of the axis."""
    count = len(stack[0].values)
    floor: list[float] = [0.0] * count
    paths: list[str] = []
    for series in stack:
        roof = [None if value is None else below + value for value, below in zip(series.values, floor, strict=True)]
        for first, last in _stretches(roof):
            # Before the earlier ones: where nothing lies on them, their own line is seen.
            paths[:0] = _shape(series.kind, roof[first:last], floor[first:last], first, top)
        floor = [below if value is None else value for value, below in zip(roof, floor, strict=True)]
    plot = HEIGHT - TOP - FOOT
    box = {"viewBox": f"0 0 {count} {plot}", "preserveAspectRatio": "none", "width": "100%", "y": TOP, "height": plot}
    inner = element("svg", *paths, **box) if paths else ""
    return _chart(ident, title, description, frame, top, inner, label or _number)


def _shape(kind: str, roof: Sequence[float | None], floor: Sequence[float], first: int, top: float) -> list[str]:
    """Return a filled area and the line on top of it; each part of the time is one step wide."""
    upper = _steps([value or 0.0 for value in roof], first, top)
    lower = _steps(floor, first, top)
    filled = element("path", d=f"M{' '.join(upper)} {' '.join(reversed(lower))}Z", class_=f"{kind} fill")
    return [filled, element("path", d=f"M{' '.join(upper)}", class_=f"{kind} line", vector_effect="non-scaling-stroke")]


def _steps(values: Sequence[float], first: int, top: float) -> list[str]:
    heights = [f"{_y(value, top) - TOP:.1f}" for value in values]
    points = []
    for index, height in enumerate(heights):
        if index == 0 or heights[index - 1] != height:
            points += [f"{first + index},{heights[index - 1]}"] if index else []
            points.append(f"{first + index},{height}")
    return [*points, f"{first + len(heights)},{heights[-1]}"]


def _stretches(values: Sequence[float | None]) -> list[tuple[int, int]]:
    """Return where values stand without a hole between them."""
    edges = [i for i in range(len(values) + 1) if _known(values, i) != _known(values, i - 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _known(values: Sequence[float | None], index: int) -> bool:
    return 0 <= index < len(values) and values[index] is not None


def _chart(
    ident: str, title: str, description: str, frame: Frame, top: float, inner: str, label: Callable[[float], str]
) -> str:
    lines, words = [], []
    for value in (0.0, top / 2, top):
        y = _y(value, top)
        lines.append(
            element("line", x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}", class_="base" if value == 0 else "grid")
        )
        words.append(text(label(value), x=-6, y=f"{y + 4:.1f}", text_anchor="end"))
    foot = HEIGHT - FOOT
    moments = [at for at in range(int(frame.begin), int(frame.end) + 1, HOUR) if at % (TICK_HOURS * HOUR) == 0]
    for at in moments:
        place = frame.at(at)
        lines.append(element("line", x1=place, x2=place, y1=foot, y2=foot + 4, class_="base"))
        words.append(text(clock(at), x=place, y=foot + 17, text_anchor=_anchor(at, frame)))
    return picture(ident, title, description, *lines, inner, *words, class_="chart", width="100%", height=HEIGHT)


def _anchor(at: float, frame: Frame) -> str:
    """Return on which side of its place a word stands, so that it does not leave the picture."""
    share = (at - frame.begin) / (frame.end - frame.begin)
    return "end" if share > 0.95 else "start" if share < 0.05 else "middle"


def _y(value: float, top: float) -> float:
    return HEIGHT - FOOT - (HEIGHT - TOP - FOOT) * min(value, top) / top


def _number(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
