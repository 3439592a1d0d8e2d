"""Draws a timeline in characters: a scale, the audio, each screen file, the result and the overlaps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from muxer.log.setup import escape_control
from muxer.status import timeline_view
from muxer.status.progress import format_duration
from muxer.status.timeline_view import TimelineAxis, TimelineView

MIN_CELLS = 20
MAX_LABEL_LENGTH = 28
# Cells between two marks of the scale.
MIN_MARK_DISTANCE = 12


@dataclass(frozen=True)
class CellKind:
    """What a cell shows: its character in Unicode and in ASCII, its colour, and its text in the legend."""

    sign: str
    ascii: str
    style: str
    meaning: str


AUDIO = CellKind("━", "-", "cyan", "audio")
COPY = CellKind("█", "=", "green", "copied")
ENCODED = CellKind("▒", "#", "yellow", "re-encoded")
SHOWN = CellKind("▓", "+", "green", "shown")
PADDING = CellKind("·", ".", "bright_black", "padding, black")
PAUSED = CellKind("░", "o", "blue", "paused, black")
CUT = CellKind("╌", "x", "red", "not shown")
OVERLAP = CellKind("▲", "!", "magenta", "screen files overlap")
NOTHING = CellKind(" ", " ", "", "")
_LEGEND = (AUDIO, COPY, ENCODED, SHOWN, PADDING, PAUSED, CUT, OVERLAP)
_PARTS = {
    timeline_view.COPY: COPY,
    timeline_view.ENCODE: ENCODED,
    timeline_view.PADDING: PADDING,
    timeline_view.PAUSED: PAUSED,
}

StyledText = tuple[str, str]
StyledLine = list[StyledText]


def draw_timeline(timeline: TimelineView, width: int, *, unicode: bool, assumed: bool = False) -> list[StyledLine]:
    """Draw `timeline` in lines of `width` characters. `assumed`: what can be copied is not known."""
    names = [f"{screen.number} {escape_control(screen.name)}" for screen in timeline.screens]
    labels = ["audio", *names, "result", "overlap"]
    column = min(max(map(len, labels)), MAX_LABEL_LENGTH, max(8, width // 3))
    drawing = _Drawing(timeline_view.create_axis(timeline), max(MIN_CELLS, width - column - 2))
    # A timeline without overlap has no such row.
    rows = list(zip(labels, _draw_rows(timeline, drawing, assumed), strict=False))
    lines: list[StyledLine] = [[(f"{'':{column}} {text}", "")] for text in drawing.scale_lines()]
    lines += [[(f"{_fit_label(label, column, unicode)} ", ""), *_styled_spans(row, unicode)] for label, row in rows]
    legend: StyledLine = [(" " * (column + 1), "")]
    for kind in _LEGEND:
        if any(kind in row for _, row in rows):
            legend += [(kind.sign if unicode else kind.ascii, kind.style), (f" {kind.meaning}  ", "")]
    return [*lines, legend]


@dataclass(frozen=True)
class _Drawing:
    axis: TimelineAxis
    cells: int

    def paint_span(self, row: list[CellKind], begin: float, end: float, kind: CellKind) -> None:
        """Paint a span: at least one cell, so that it is visible."""
        first = min(int(self.axis.axis_fraction(begin) * self.cells), self.cells - 1)
        last = max(round(self.axis.axis_fraction(end) * self.cells), first + 1)
        row[first:last] = [kind] * (last - first)

    def scale_lines(self) -> tuple[str, str]:
        """Return the line with the times of the scale and the line with the marks below them."""
        times, marks = [" "] * (self.cells + 8), [" "] * (self.cells + 1)
        for time in self.axis.tick_times(self.cells / MIN_MARK_DISTANCE):
            at = int(self.axis.axis_fraction(time) * self.cells)
            text = f"-{format_duration(-time)}" if time < 0 else format_duration(time)
            if at + len(text) <= self.cells + 1:
                times[at : at + len(text)] = text
                marks[at] = "|"
        return "".join(times).rstrip(), "".join(marks).rstrip()


def _draw_rows(timeline: TimelineView, drawing: _Drawing, assumed: bool) -> list[list[CellKind]]:
    audio, result, overlap, *bars = ([NOTHING] * drawing.cells for _ in range(3 + len(timeline.screens)))
    drawing.paint_span(audio, 0.0, timeline.length, AUDIO)
    for bar, screen in zip(bars, timeline.screens, strict=True):
        drawing.paint_span(bar, screen.begin, screen.end, CUT)
    # Short parts last, so that long ones do not cover them; paused ones lie within padding.
    for part in sorted(timeline.parts, key=lambda part: (part.kind == timeline_view.PAUSED, -part.length)):
        kind = SHOWN if assumed and part.screen else _PARTS[part.kind]
        drawing.paint_span(result, part.begin, part.end, kind)
        if part.screen:
            drawing.paint_span(bars[part.screen - 1], part.source_begin, part.source_begin + part.length, kind)
    for _, _, span in timeline.find_overlaps(min_seconds=0.0):
        drawing.paint_span(overlap, *span, OVERLAP)
    return [audio, *bars, result, *([overlap] if OVERLAP in overlap else [])]


def _styled_spans(row: Sequence[CellKind], unicode: bool) -> StyledLine:
    groups = groupby(row, key=lambda kind: kind.style)
    return [("".join(kind.sign if unicode else kind.ascii for kind in group), style) for style, group in groups]


def _fit_label(label: str, column: int, unicode: bool) -> str:
    """Return a label as wide as the column. A long one is cut in the middle: its end is the most useful part."""
    if not unicode:
        label = label.encode("ascii", "replace").decode()
    if len(label) > column:
        head = column // 3
        label = label[:head] + ("…" if unicode else "~") + label[len(label) - (column - head - 1) :]
    return f"{label:{column}}"
