"""The charts of the last 24 hours as SVG, as wide as the plot; the axis has the left margin. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from muxer.monitoring.svg import format_percent, svg_element, svg_image, svg_text
from muxer.status.formatting import format_time

HEIGHT = 120
TOP, FOOT = 8, 22
TICK_HOURS = 6
HOUR_SECONDS = 3600
_AXIS_SECONDS = (60, 300, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 12 * 3600, 86_400, 2 * 86_400, 7 * 86_400)


@dataclass(frozen=True)
class ChartSeries:
    """Values for equal steps of time, None when unknown; `kind` is the class in the style sheet."""

    kind: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class ChartFrame:
    """The time axis that all charts share, in epoch seconds."""

    begin: float
    end: float

    def x_position(self, at: float) -> str:
        """Return the horizontal position of a time."""
        return format_percent((at - self.begin) / (self.end - self.begin))


def round_axis_top(most: float) -> float:
    """Return the top of an axis for values up to `most`: a round number that can be halved."""
    if most <= 2:
        return 2.0
    scale = 10.0 ** math.floor(math.log10(most))
    tops = (step * scale for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10))
    return next(top for top in tops if top >= most and top % 2 == 0)


def round_axis_seconds(most: float) -> float:
    """Return the top of an axis for times up to `most` seconds: a usual unit of time."""
    longest = _AXIS_SECONDS[-1]
    return float(next((top for top in _AXIS_SECONDS if top >= most), math.ceil(most / longest) * longest))


def bar_chart(ident: str, title: str, description: str, frame: ChartFrame, stack: Sequence[ChartSeries]) -> str:
    """Return a chart of stacked bars. All series have the same length."""
    count = len(stack[0].values)
    top = round_axis_top(max((sum(series.values[i] or 0 for series in stack) for i in range(count)), default=0))
    bars = []
    for index in range(count):
        floor = 0.0
        for series in stack:
            value = series.values[index] or 0
            if value:
                high, low = _y_position(floor + value, top), _y_position(floor, top)
                size = {"x": format_percent((index + 0.12) / count), "width": format_percent(0.76 / count)}
                bars.append(svg_element("rect", **size, y=f"{high:.1f}", height=f"{low - high:.1f}", class_=series.kind))
            floor += value
    return _chart_frame(ident, title, description, frame, top, "".join(bars), _format_number)


def area_chart(
    ident: str,
    title: str,
    description: str,
    frame: ChartFrame,
    stack: Sequence[ChartSeries],
    top: float,
    label: Callable[[float], str] | None = None,
) -> str:
    """Return a chart of stacked areas with gaps where a value is None. `label` formats the numbers of the axis."""
    count = len(stack[0].values)
    floor: list[float] = [0.0] * count
    paths: list[str] = []
    for series in stack:
        roof = [None if value is None else below + value for value, below in zip(series.values, floor, strict=True)]
        for first, last in _known_segments(roof):
            # Drawn below the earlier series, so that the line of those stays visible.
            paths[:0] = _area_paths(series.kind, roof[first:last], floor[first:last], first, top)
        floor = [below if value is None else value for value, below in zip(roof, floor, strict=True)]
    plot = HEIGHT - TOP - FOOT
    box = {"viewBox": f"0 0 {count} {plot}", "preserveAspectRatio": "none", "width": "100%", "y": TOP, "height": plot}
    inner = svg_element("svg", *paths, **box) if paths else ""
    return _chart_frame(ident, title, description, frame, top, inner, label or _format_number)


def _area_paths(kind: str, roof: Sequence[float | None], floor: Sequence[float], first: int, top: float) -> list[str]:
    """Return a filled area and the line on top of it; each value is one step wide."""
    upper = _step_points([value or 0.0 for value in roof], first, top)
    lower = _step_points(floor, first, top)
    filled = svg_element("path", d=f"M{' '.join(upper)} {' '.join(reversed(lower))}Z", class_=f"{kind} fill")
    return [filled, svg_element("path", d=f"M{' '.join(upper)}", class_=f"{kind} line", vector_effect="non-scaling-stroke")]


def _step_points(values: Sequence[float], first: int, top: float) -> list[str]:
    heights = [f"{_y_position(value, top) - TOP:.1f}" for value in values]
    points = []
    for index, height in enumerate(heights):
        if index == 0 or heights[index - 1] != height:
            points += [f"{first + index},{heights[index - 1]}"] if index else []
            points.append(f"{first + index},{height}")
    return [*points, f"{first + len(heights)},{heights[-1]}"]


def _known_segments(values: Sequence[float | None]) -> list[tuple[int, int]]:
    edges = [i for i in range(len(values) + 1) if _is_known(values, i) != _is_known(values, i - 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _is_known(values: Sequence[float | None], index: int) -> bool:
    return 0 <= index < len(values) and values[index] is not None


def _chart_frame(
    ident: str, title: str, description: str, frame: ChartFrame, top: float, inner: str, label: Callable[[float], str]
) -> str:
    lines, texts = [], []
    for value in (0.0, top / 2, top):
        y = _y_position(value, top)
        lines.append(
            svg_element("line", x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}", class_="base" if value == 0 else "grid")
        )
        texts.append(svg_text(label(value), x=-6, y=f"{y + 4:.1f}", text_anchor="end"))
    foot = HEIGHT - FOOT
    ticks = [at for at in range(int(frame.begin), int(frame.end) + 1, HOUR_SECONDS) if at % (TICK_HOURS * HOUR_SECONDS) == 0]
    for at in ticks:
        x = frame.x_position(at)
        lines.append(svg_element("line", x1=x, x2=x, y1=foot, y2=foot + 4, class_="base"))
        texts.append(svg_text(format_time(at), x=x, y=foot + 17, text_anchor=_text_anchor(at, frame)))
    return svg_image(ident, title, description, *lines, inner, *texts, class_="chart", width="100%", height=HEIGHT)


def _text_anchor(at: float, frame: ChartFrame) -> str:
    fraction = (at - frame.begin) / (frame.end - frame.begin)
    return "end" if fraction > 0.95 else "start" if fraction < 0.05 else "middle"


def _y_position(value: float, top: float) -> float:
    return HEIGHT - FOOT - (HEIGHT - TOP - FOOT) * min(value, top) / top


def _format_number(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
