"""The picture of a timeline as SVG: a bar for the audio, the screen files at their places, and the muxed file. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from muxer.monitoring.svg import format_percent, svg_element, svg_image, svg_text
from muxer.monitoring.timelines import (
    COPY,
    ENCODE,
    PADDING,
    PAUSED,
    TimelinePart,
    TimelineScreen,
    TimelineView,
    merge_parts,
    timeline_summary,
)
from muxer.status.formatting import format_position

ROW, GAP = 26, 10
# Screen files share this height when they lie one above the other.
MAX_LANES_HEIGHT = 8 * ROW
MIN_LANE_HEIGHT, MIN_NUMBERED_HEIGHT = 3.0, 16.0
# A bar narrower than this share of the picture has no room for its number.
MIN_NUMBER_WIDTH = 0.05
# Screen files that lie far outside the audio (a wrong start time) must not press it together.
MAX_OUTSIDE_FRACTION = 0.3
MAX_AXIS_TICKS = 6
STRIP_WIDTH, STRIP_HEIGHT = 120, 14
KIND_LABELS = {COPY: "copied", ENCODE: "re-encoded", PADDING: "padding", PAUSED: "paused"}
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)


@dataclass(frozen=True)
class TimelineAxis:
    """The time that a picture shows, in seconds from the start of the audio."""

    begin: float
    end: float

    def axis_fraction(self, at: float) -> float:
        """Return where a time lies, from 0 to 1; what is outside lies on the edge."""
        return (min(max(at, self.begin), self.end) - self.begin) / (self.end - self.begin)

    def bar_attributes(self, begin: float, end: float) -> dict[str, str]:
        """Return the attributes of a bar."""
        return {
            "x": format_percent(self.axis_fraction(begin)),
            "width": format_percent(self.axis_fraction(end) - self.axis_fraction(begin)),
        }


def create_axis(timeline: TimelineView) -> TimelineAxis:
    """Given a timeline, return the time to show: the audio, and what begins before or ends after it, within bounds."""
    least, most = -MAX_OUTSIDE_FRACTION * timeline.length, (1 + MAX_OUTSIDE_FRACTION) * timeline.length
    first = min([0.0, *(screen.begin for screen in timeline.screens)])
    last = max([timeline.length, *(screen.end for screen in timeline.screens)])
    return TimelineAxis(max(first, least), min(last, most))


def arrange_lanes(screens: Sequence[TimelineScreen]) -> list[list[TimelineScreen]]:
    """Given screen files, return them in as few rows as there can be without one over another."""
    rows: list[list[TimelineScreen]] = []
    for screen in sorted(screens, key=lambda one: (one.begin, one.number)):
        free = next((row for row in rows if row[-1].end <= screen.begin + 1e-9), None)
        if free is None:
            rows.append([screen])
        else:
            free.append(screen)
    return rows


def render_timeline(timeline: TimelineView, ident: str) -> str:
    """Given a timeline and an id that no other picture of the page has, return its picture."""
    axis, rows = create_axis(timeline), arrange_lanes(timeline.screens)
    lane = min(float(ROW), max(MIN_LANE_HEIGHT, MAX_LANES_HEIGHT / max(1, len(rows))))
    screens_at = ROW + GAP
    result_at = screens_at + lane * len(rows) + GAP
    foot = result_at + ROW + 4
    drawn = [
        *_audio_edges(axis, timeline, foot),
        _titled_bar(axis, 0, timeline.length, 0, ROW, "audio", f"audio {format_position(timeline.length)}"),
        *(one for number, row in enumerate(rows) for one in _lane_bars(axis, row, screens_at + number * lane, lane)),
        *(_overlap_bar(axis, where, screens_at, lane * len(rows)) for _, _, where in timeline.screen_overlaps),
        *(_result_bar(axis, part, result_at) for part in merge_parts(timeline.parts)),
        *_axis_ticks(axis, foot),
    ]
    heads = (("Audio", 0.0, ROW), ("Screens", screens_at, min(lane * len(rows), ROW)), ("Result", result_at, ROW))
    labels = [svg_text(word, x=-72, y=f"{y + height / 2 + 4:.1f}") for word, y, height in heads if height]
    height = f"{foot + 22:.0f}"
    return svg_image(
        ident, "Timeline", timeline_summary(timeline), *drawn, *labels, class_="timeline", width="100%", height=height
    )


def _audio_edges(axis: TimelineAxis, timeline: TimelineView, foot: float) -> list[str]:
    places = [format_percent(axis.axis_fraction(at)) for at in (0.0, timeline.length)]
    return [svg_element("line", x1=place, x2=place, y1=0, y2=f"{foot:.1f}", class_="edge") for place in places]


def _lane_bars(axis: TimelineAxis, row: Sequence[TimelineScreen], y: float, height: float) -> list[str]:
    """Return the bars of one row of screen files: the whole file, over it what is cut off, and over both its number."""
    drawn = []
    for screen in row:
        words = f"screen {screen.number}: {format_position(screen.begin, 1)} to {format_position(screen.end, 1)}"
        drawn.append(_titled_bar(axis, screen.begin, screen.end, y, height - 2, "screen", words))
        drawn += [_titled_bar(axis, *cut, y, height - 2, "cut", f"screen {screen.number}: cut off") for cut in screen.cuts]
        if height >= MIN_NUMBERED_HEIGHT:
            drawn.append(_bar_label(axis, screen.begin, screen.end, y, height - 2, "screen", str(screen.number)))
    return drawn


def _overlap_bar(axis: TimelineAxis, where: tuple[float, float], y: float, height: float) -> str:
    return _titled_bar(axis, *where, y - 3, height + 4, "overlap", "overlap")


def _result_bar(axis: TimelineAxis, part: TimelinePart, y: float) -> str:
    of = f" of screen {part.screen}" if part.screen else ""
    words = f"{format_position(part.begin, 1)} to {format_position(part.end, 1)}: {KIND_LABELS[part.kind]}{of}"
    where = (axis, part.begin, part.end, y, ROW, part.kind)
    return _titled_bar(*where, words) + _bar_label(*where, str(part.screen or ""))


def _titled_bar(axis: TimelineAxis, begin: float, end: float, y: float, height: float, kind: str, words: str) -> str:
    """Return a bar with words for the pointer."""
    size = {"y": f"{y:.1f}", "height": f"{height:.1f}"}
    return svg_element("rect", svg_element("title", words), **axis.bar_attributes(begin, end), **size, class_=kind)


def _bar_label(axis: TimelineAxis, begin: float, end: float, y: float, height: float, kind: str, words: str) -> str:
    """Return words in the middle of a bar, when there is room for them."""
    if not words or axis.axis_fraction(end) - axis.axis_fraction(begin) < MIN_NUMBER_WIDTH:
        return ""
    middle = format_percent((axis.axis_fraction(begin) + axis.axis_fraction(end)) / 2)
    return svg_text(words, x=middle, y=f"{y + height / 2 + 4:.1f}", text_anchor="middle", class_=f"on-{kind}")


def _axis_ticks(axis: TimelineAxis, foot: float) -> list[str]:
    drawn = [svg_element("line", x1="0", x2="100%", y1=f"{foot:.1f}", y2=f"{foot:.1f}", class_="base")]
    moments = tick_times(axis)
    for number, at in enumerate(moments, -moments.index(0)):
        place = format_percent(axis.axis_fraction(at))
        drawn.append(svg_element("line", x1=place, x2=place, y1=f"{foot:.1f}", y2=f"{foot + 4:.1f}", class_="base"))
        side = "end" if axis.axis_fraction(at) > 0.95 else "start" if axis.axis_fraction(at) < 0.03 else "middle"
        # Every second one gives way where the window is narrow.
        kind = "between" if number % 2 else None
        drawn.append(svg_text(format_position(at), x=place, y=f"{foot + 17:.1f}", text_anchor=side, class_=kind))
    return drawn


def tick_times(axis: TimelineAxis) -> list[float]:
    """Given the time of a picture, return a few round times in it, the start of the audio among them."""
    length = axis.end - axis.begin
    step = next((one for one in _STEPS if length / one <= MAX_AXIS_TICKS), length / MAX_AXIS_TICKS)
    first = -int(-axis.begin // step)
    return [number * step for number in range(first, int(axis.end // step) + 1)]


def render_strip(timeline: TimelineView) -> str:
    """Given a timeline, return the muxed file alone, as a small picture: each pixel shows what most of it is."""
    drawn, x = [], 0
    for kind, group in groupby(_slot_kinds(timeline)):
        width = len(list(group))
        drawn.append(svg_element("rect", x=x, y=0, width=width, height=STRIP_HEIGHT, class_=kind))
        x += width
    size = {"width": STRIP_WIDTH, "height": STRIP_HEIGHT}
    return svg_element("svg", *drawn, aria_hidden="true", class_="strip", **size)


def _slot_kinds(timeline: TimelineView) -> list[str]:
    """Return what most of each slot of the strip shows."""
    width = timeline.length / STRIP_WIDTH
    shares = [dict.fromkeys(KIND_LABELS, 0.0) for _ in range(STRIP_WIDTH)]
    for part in timeline.parts:
        first, last = int(part.begin / width), min(int(part.end / width), STRIP_WIDTH - 1)
        for slot in range(max(0, first), last + 1):
            shares[slot][part.kind] += max(0.0, min(part.end, (slot + 1) * width) - max(part.begin, slot * width))
    return [max(share, key=lambda kind: share[kind]) for share in shares]
