"""Draws a timeline in characters: the audio, each screen file at its place, and the result, below a scale. Pure.

A timeline is what the journal keeps of a muxed file (:meth:`muxer.media.plan.mux_plan.MuxTimeline.journal_facts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from muxer.log.setup import escape_control
from muxer.status.progress import format_duration

MIN_CELLS = 20
MAX_LABEL_LENGTH = 28
# So many cells lie between two marks of the scale, or more.
MIN_MARK_DISTANCE = 12
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)


@dataclass(frozen=True)
class CellKind:
    """What a cell shows: its character in Unicode and in ASCII, its colour, and what the legend says."""

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
TEXT = CellKind("", "", "", "")
_LEGEND = (AUDIO, COPY, ENCODED, SHOWN, PADDING, PAUSED, CUT, OVERLAP)

StyledText = tuple[str, str]
StyledLine = list[StyledText]


def draw_timeline(facts: Mapping[str, Any], width: int, *, unicode: bool, assumed: bool = False) -> list[StyledLine]:
    """Given a timeline, the number of characters in a line, and whether they may be more than ASCII, return the lines as
    texts with their colours. ``assumed``: lengths are those of the metadata, nobody knows what will be copied."""
    names = [f"{number} {escape_control(screen['name'])}" for number, screen in enumerate(facts["screens"], start=1)]
    labels = ["audio", *names, "result", "overlap"]
    column = min(max(map(len, labels)), MAX_LABEL_LENGTH, max(8, width // 3))
    axis = _create_axis(facts, max(MIN_CELLS, width - column - 2))
    rows = _draw_rows(facts, axis, labels, assumed)
    lines: list[StyledLine] = [[(f"{'':{column}} {text}", "")] for text in axis.scale_lines()]
    lines += [[(f"{_fit_label(label, column, unicode)} ", ""), *_styled_spans(row, unicode)] for label, row in rows]
    used = [kind for kind in _LEGEND if any(kind in row for _, row in rows)]
    legend: StyledLine = [(" " * (column + 1), "")]
    for kind in used:
        legend += [(kind.sign if unicode else kind.ascii, kind.style), (f" {kind.meaning}  ", "")]
    return [*lines, legend]


@dataclass(frozen=True)
class _Axis:
    """Cells on the axis of time, from ``begin`` to ``end`` in seconds of the audio."""

    begin: float
    end: float
    cells: int

    def cell_position(self, moment: float) -> float:
        """Return where a moment lies, in cells; not beyond the ends."""
        return min(max((moment - self.begin) / (self.end - self.begin), 0.0), 1.0) * self.cells

    def paint_span(self, row: list[CellKind], begin: float, end: float, kind: CellKind) -> None:
        """Paint a stretch: at least a cell, so that none goes unseen."""
        first = min(int(self.cell_position(begin)), self.cells - 1)
        last = max(round(self.cell_position(end)), first + 1)
        row[first:last] = [kind] * (last - first)

    def scale_lines(self) -> tuple[str, str]:
        """Return the times of the scale, and the marks below them."""
        span = self.end - self.begin
        step = next((one for one in _STEPS if one * self.cells / span >= MIN_MARK_DISTANCE), _STEPS[-1])
        times, marks = [" "] * (self.cells + 8), [" "] * (self.cells + 1)
        moment = -int(-self.begin // step) * step
        while moment <= self.end:
            at = int(self.cell_position(moment))
            text = f"-{format_duration(-moment)}" if moment < 0 else format_duration(moment)
            if at + len(text) <= self.cells + 1:
                times[at : at + len(text)] = text
                marks[at] = "|"
            moment += step
        return "".join(times).rstrip(), "".join(marks).rstrip()


def _create_axis(facts: Mapping[str, Any], cells: int) -> _Axis:
    """Return an axis that shows everything, but of a file that lies far outside only so much that the audio stays
    readable."""
    length = max(float(facts["length"]), 0.001)
    begin = min([0.0, *(screen["start"] for screen in facts["screens"])])
    end = max([length, *(screen["start"] + screen["length"] for screen in facts["screens"])])
    return _Axis(max(begin, -length / 2), min(end, 1.5 * length), cells)


def _draw_rows(
    facts: Mapping[str, Any], axis: _Axis, labels: Sequence[str], assumed: bool
) -> list[tuple[str, list[CellKind]]]:
    screens = facts["screens"]
    rows = [[NOTHING] * axis.cells for _ in labels]
    audio, *bars, result, overlap = rows
    axis.paint_span(audio, 0.0, facts["length"], AUDIO)
    for bar, screen in zip(bars, screens, strict=True):
        axis.paint_span(bar, screen["start"], screen["start"] + screen["length"], CUT)
    # Short pieces last, so that long ones do not cover them.
    for piece in sorted(facts["pieces"], key=lambda one: one["begin"] - one["end"]):
        number, length = piece["screen"], piece["end"] - piece["begin"]
        kind = PADDING if number is None else SHOWN if assumed else COPY if piece["reason"] is None else ENCODED
        axis.paint_span(result, piece["begin"], piece["end"], kind)
        if number is not None:
            at = screens[number]["start"] + piece["offset"]
            axis.paint_span(bars[number], at, at + length, kind)
    for span in facts.get("paused", ()):
        axis.paint_span(result, span["begin"], span["end"], PAUSED)
    for begin, end in _screen_overlaps(screens):
        axis.paint_span(overlap, begin, end, OVERLAP)
    there = list(zip(labels, rows, strict=True))
    return there if OVERLAP in overlap else there[:-1]


def _screen_overlaps(screens: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, float]]:
    """Yield where two screen files lie over each other."""
    for one, other in combinations(screens, 2):
        begin = max(one["start"], other["start"])
        end = min(one["start"] + one["length"], other["start"] + other["length"])
        if end > begin:
            yield begin, end


def _styled_spans(row: Sequence[CellKind], unicode: bool) -> StyledLine:
    spans: StyledLine = []
    for kind in row:
        sign = kind.sign if unicode else kind.ascii
        if spans and spans[-1][1] == kind.style:
            spans[-1] = (spans[-1][0] + sign, kind.style)
        else:
            spans.append((sign, kind.style))
    return spans


def _fit_label(label: str, column: int, unicode: bool) -> str:
    """Return a label as wide as the column; of a long one, the end tells more than the middle."""
    if not unicode:
        label = label.encode("ascii", "replace").decode()
    if len(label) > column:
        head = column // 3
        label = label[:head] + ("…" if unicode else "~") + label[len(label) - (column - head - 1) :]
    return f"{label:{column}}"
