"""Renders a timeline as SVG: a bar for the audio, the screen files at their times, and the muxed file. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from muxer.monitoring.svg import format_percent, svg_element, svg_image, svg_text
from muxer.status.formatting import format_position
from muxer.status.timeline_view import (
    KIND_LABELS,
    TimelineAxis,
    TimelinePart,
    TimelineScreen,
    TimelineView,
    create_axis,
    merge_parts,
    timeline_summary,
)

ROW, GAP = 26, 10
# The total height of the screen files; each has less when many overlap.
MAX_LANES_HEIGHT = 8 * ROW
MIN_LANE_HEIGHT, MIN_NUMBERED_HEIGHT = 3.0, 16.0
# A bar narrower than this part of the drawing has no room for its number.
MIN_NUMBER_WIDTH = 0.05
MAX_AXIS_TICKS = 6
STRIP_WIDTH, STRIP_HEIGHT = 120, 14


def _bar_attributes(axis: TimelineAxis, begin: float, end: float) -> dict[str, str]:
    first, last = axis.axis_fraction(begin), axis.axis_fraction(end)
    return {"x": format_percent(first), "width": format_percent(last - first)}


def arrange_lanes(screens: Sequence[TimelineScreen]) -> list[list[TimelineScreen]]:
    """Distribute screen files over as few rows as possible so that none covers another."""
    rows: list[list[TimelineScreen]] = []
    for screen in sorted(screens, key=lambda screen: (screen.begin, screen.number)):
        free = next((row for row in rows if row[-1].end <= screen.begin + 1e-9), None)
        if free is None:
            rows.append([screen])
        else:
            free.append(screen)
    return rows


def render_timeline(timeline: TimelineView, ident: str) -> str:
    """Return the drawing of `timeline`. `ident` is a prefix for ids, unique on the page."""
    axis, rows = create_axis(timeline), arrange_lanes(timeline.screens)
    lane = min(float(ROW), max(MIN_LANE_HEIGHT, MAX_LANES_HEIGHT / max(1, len(rows))))
    screens_at = ROW + GAP
    result_at = screens_at + lane * len(rows) + GAP
    foot = result_at + ROW + 4
    overlaps = (span for _, _, span in timeline.find_overlaps())
    over_at, over_height = screens_at - 3, lane * len(rows) + 4
    elements = [
        *_audio_edges(axis, timeline, foot),
        _titled_bar(axis, 0, timeline.length, 0, ROW, "audio", f"audio {format_position(timeline.length)}"),
        *(bar for number, row in enumerate(rows) for bar in _lane_bars(axis, row, screens_at + number * lane, lane)),
        *(_titled_bar(axis, *span, over_at, over_height, "overlap", "overlap") for span in overlaps),
        *(_result_bar(axis, part, result_at) for part in merge_parts(timeline.parts)),
        *_axis_ticks(axis, foot),
    ]
    heads = (("Audio", 0.0, ROW), ("Screens", screens_at, min(lane * len(rows), ROW)), ("Result", result_at, ROW))
    elements += [svg_text(word, x=-72, y=f"{y + height / 2 + 4:.1f}") for word, y, height in heads if height]
    size = {"width": "100%", "height": f"{foot + 22:.0f}"}
    return svg_image(ident, "Timeline", timeline_summary(timeline), *elements, class_="timeline", **size)


def _audio_edges(axis: TimelineAxis, timeline: TimelineView, foot: float) -> list[str]:
    edges = [format_percent(axis.axis_fraction(at)) for at in (0.0, timeline.length)]
    return [svg_element("line", x1=edge, x2=edge, y1=0, y2=f"{foot:.1f}", class_="edge") for edge in edges]


def _lane_bars(axis: TimelineAxis, row: Sequence[TimelineScreen], y: float, height: float) -> list[str]:
    """Return, for each screen file of a row: the whole file, over it what is cut off, and on top its number."""
    bars = []
    for screen in row:
        words = f"screen {screen.number}: {format_position(screen.begin, 1)} to {format_position(screen.end, 1)}"
        bars.append(_titled_bar(axis, screen.begin, screen.end, y, height - 2, "screen", words))
        bars += [_titled_bar(axis, *cut, y, height - 2, "cut", f"screen {screen.number}: cut off") for cut in screen.cuts]
        if height >= MIN_NUMBERED_HEIGHT:
            bars.append(_bar_label(axis, screen.begin, screen.end, y, height - 2, "screen", str(screen.number)))
    return bars


def _result_bar(axis: TimelineAxis, part: TimelinePart, y: float) -> str:
    of = f" of screen {part.screen}" if part.screen else ""
    words = f"{format_position(part.begin, 1)} to {format_position(part.end, 1)}: {KIND_LABELS[part.kind]}{of}"
    bar = (axis, part.begin, part.end, y, ROW, part.kind)
    return _titled_bar(*bar, words) + _bar_label(*bar, str(part.screen or ""))


def _titled_bar(axis: TimelineAxis, begin: float, end: float, y: float, height: float, kind: str, words: str) -> str:
    size = {"y": f"{y:.1f}", "height": f"{height:.1f}"}
    return svg_element("rect", svg_element("title", words), **_bar_attributes(axis, begin, end), **size, class_=kind)


def _bar_label(axis: TimelineAxis, begin: float, end: float, y: float, height: float, kind: str, words: str) -> str:
    """Return `words` for the middle of a bar, an empty text when the bar is too narrow."""
    if not words or axis.axis_fraction(end) - axis.axis_fraction(begin) < MIN_NUMBER_WIDTH:
        return ""
    middle = format_percent((axis.axis_fraction(begin) + axis.axis_fraction(end)) / 2)
    return svg_text(words, x=middle, y=f"{y + height / 2 + 4:.1f}", text_anchor="middle", class_=f"on-{kind}")


def _axis_ticks(axis: TimelineAxis, foot: float) -> list[str]:
    elements = [svg_element("line", x1="0", x2="100%", y1=f"{foot:.1f}", y2=f"{foot:.1f}", class_="base")]
    times = axis.tick_times(MAX_AXIS_TICKS)
    for number, at in enumerate(times, -times.index(0)):
        x = format_percent(axis.axis_fraction(at))
        elements.append(svg_element("line", x1=x, x2=x, y1=f"{foot:.1f}", y2=f"{foot + 4:.1f}", class_="base"))
        side = "end" if axis.axis_fraction(at) > 0.95 else "start" if axis.axis_fraction(at) < 0.03 else "middle"
        # The style sheet hides every second label in a narrow window.
        kind = "between" if number % 2 else None
        elements.append(svg_text(format_position(at), x=x, y=f"{foot + 17:.1f}", text_anchor=side, class_=kind))
    return elements


def render_strip(timeline: TimelineView) -> str:
    """Return a small drawing of the muxed file alone: each pixel shows the most frequent kind of its time."""
    bars, x = [], 0
    for kind, group in groupby(_slot_kinds(timeline)):
        width = len(list(group))
        bars.append(svg_element("rect", x=x, y=0, width=width, height=STRIP_HEIGHT, class_=kind))
        x += width
    size = {"width": STRIP_WIDTH, "height": STRIP_HEIGHT}
    return svg_element("svg", *bars, aria_hidden="true", class_="strip", **size)


def _slot_kinds(timeline: TimelineView) -> list[str]:
    width = timeline.length / STRIP_WIDTH
    seconds = [dict.fromkeys(KIND_LABELS, 0.0) for _ in range(STRIP_WIDTH)]
    for part in timeline.parts:
        first, last = int(part.begin / width), min(int(part.end / width), STRIP_WIDTH - 1)
        for slot in range(max(0, first), last + 1):
            seconds[slot][part.kind] += max(0.0, min(part.end, (slot + 1) * width) - max(part.begin, slot * width))
    return [max(slot, key=lambda kind: slot[kind]) for slot in seconds]
