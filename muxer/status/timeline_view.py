"""View model of a timeline, drawn by the command `plan` and the status page. Times are seconds of the audio. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from muxer.status.formatting import format_exact, format_position

COPY, ENCODE, PADDING, PAUSED = "copy", "encode", "padding", "paused"
KIND_LABELS = {COPY: "copied", ENCODE: "re-encoded", PADDING: "padding", PAUSED: "paused"}
# A shorter remainder is the last frame of a file or the rounding of its metadata.
MIN_CUT_SECONDS = 0.1
# Screen files far outside the audio (a wrong start time) take at most this part of its length on either side.
MAX_OUTSIDE_FRACTION = 0.3
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)

TimeSpan = tuple[float, float]


@dataclass(frozen=True)
class TimelineScreen:
    """A screen file: its number, counted from 1, its time, and the spans that the muxed file does not show."""

    number: int
    name: str
    begin: float
    end: float
    cuts: tuple[TimeSpan, ...]

    @property
    def is_shown(self) -> bool:
        """Whether the muxed file contains any of it."""
        return sum(end - begin for begin, end in self.cuts) < self.end - self.begin


ScreenOverlap = tuple[TimelineScreen, TimelineScreen, TimeSpan]


@dataclass(frozen=True)
class TimelinePart:
    """A part of the muxed file; `screen` None is black, `source_begin` is when it was recorded."""

    begin: float
    end: float
    kind: str
    screen: int | None = None
    source_begin: float = 0.0
    reason: str = ""

    @property
    def length(self) -> float:
        """The length in seconds."""
        return self.end - self.begin


@dataclass(frozen=True)
class TimelineView:
    """The timeline of a muxed file. `length` is that of its audio."""

    length: float
    screens: tuple[TimelineScreen, ...]
    parts: tuple[TimelinePart, ...]

    def find_overlaps(self, min_seconds: float = MIN_CUT_SECONDS) -> Iterator[ScreenOverlap]:
        """Yield the pairs of screen files that overlap by `min_seconds` or more, and where, in the order of time."""
        ordered = sorted(self.screens, key=lambda screen: (screen.begin, screen.number))
        for index, earlier in enumerate(ordered):
            for later in ordered[index + 1 :]:
                if later.begin >= earlier.end:
                    break
                if (end := min(earlier.end, later.end)) - later.begin >= min_seconds:
                    yield earlier, later, (later.begin, end)

    def total_seconds(self, kind: str) -> float:
        """Return the length of all parts of a kind."""
        return sum(part.length for part in self.parts if part.kind == kind)


def read_timeline(facts: Mapping[str, Any] | None) -> TimelineView | None:
    """Read a timeline as stored in the journal; None for a target that was only labelled, or of another version."""
    try:
        if not facts or not facts["length"] > 0:
            return None
        pieces = [_JournalPiece(**piece) for piece in facts["pieces"]]
        shown: dict[int | None, list[TimeSpan]] = defaultdict(list)
        for piece in pieces:
            shown[piece.screen].append((piece.offset, piece.offset + piece.end - piece.begin))
        screens = tuple(_create_screen(index, screen, shown[index]) for index, screen in enumerate(facts["screens"]))
        paused = [(float(span["begin"]), float(span["end"])) for span in facts.get("paused", ())]
        parts = (part for piece in pieces for part in _split_piece(piece, screens, paused))
        return TimelineView(float(facts["length"]), screens, tuple(parts))
    except (IndexError, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class _JournalPiece:
    begin: float
    end: float
    screen: int | None
    offset: float
    reason: str | None


def _create_screen(index: int, facts: Mapping[str, Any], shown: Sequence[TimeSpan]) -> TimelineScreen:
    """Return a screen file; what is not within the spans `shown` is cut off."""
    begin, length = float(facts["start"]), float(facts["length"])
    cuts, reached = [], 0.0
    for start, end in [*sorted(shown), (length, length)]:
        if start - reached >= MIN_CUT_SECONDS:
            cuts.append((begin + reached, begin + start))
        reached = max(reached, end)
    return TimelineScreen(index + 1, str(facts.get("name", "")), begin, begin + length, tuple(cuts))


def _split_piece(
    piece: _JournalPiece, screens: Sequence[TimelineScreen], paused: Sequence[TimeSpan]
) -> Iterator[TimelinePart]:
    """Yield the parts of a piece: padding is split where the recording was paused."""
    begin, end = float(piece.begin), float(piece.end)
    if piece.screen is not None:
        kind, screen = COPY if piece.reason is None else ENCODE, screens[piece.screen]
        yield TimelinePart(begin, end, kind, screen.number, screen.begin + piece.offset, piece.reason or "")
        return
    for span in paused:
        if begin < span[1] and span[0] < end:
            if begin < span[0]:
                yield TimelinePart(begin, span[0], PADDING)
            begin = min(span[1], end)
            yield TimelinePart(max(span[0], float(piece.begin)), begin, PAUSED)
    if begin < end:
        yield TimelinePart(begin, end, PADDING)


def merge_parts(parts: Sequence[TimelinePart]) -> tuple[TimelinePart, ...]:
    """Join neighbours of the same kind, screen file and reason."""
    groups = (list(group) for _, group in groupby(parts, key=lambda part: (part.kind, part.screen, part.reason)))
    return tuple(replace(group[0], end=group[-1].end) for group in groups)


@dataclass(frozen=True)
class TimelineAxis:
    """The time span that a drawing covers."""

    begin: float
    end: float

    def axis_fraction(self, at: float) -> float:
        """Return the position of a time, from 0 to 1; a time outside is at the edge."""
        return (min(max(at, self.begin), self.end) - self.begin) / (self.end - self.begin)

    def tick_times(self, max_ticks: float) -> list[float]:
        """Return about `max_ticks` round times, the start of the audio among them."""
        length = self.end - self.begin
        step = next((step for step in _STEPS if length / step <= max_ticks), length / max_ticks)
        return [number * step for number in range(-int(-self.begin // step), int(self.end // step) + 1)]


def create_axis(timeline: TimelineView) -> TimelineAxis:
    """Return the axis of the audio and of the screen files around it, up to `MAX_OUTSIDE_FRACTION`."""
    margin = MAX_OUTSIDE_FRACTION * timeline.length
    begin = min([0.0, *(screen.begin for screen in timeline.screens)])
    end = max([timeline.length, *(screen.end for screen in timeline.screens)])
    return TimelineAxis(max(begin, -margin), min(end, timeline.length + margin))


def timeline_summary(timeline: TimelineView) -> str:
    """Return one sentence on what the muxed file consists of."""
    totals = ((timeline.total_seconds(kind), label) for kind, label in KIND_LABELS.items())
    amounts = [f"{format_exact(seconds)} {label}" for seconds, label in totals if seconds > 0]
    count = len(timeline.screens)
    files = "1 screen file" if count == 1 else f"{count} screen files"
    return f"{format_exact(timeline.length)} of audio with {files}: {', '.join(amounts)}."


def screen_text(screen: TimelineScreen, timeline: TimelineView) -> str:
    """Return how much of a screen file the muxed file shows."""
    if not screen.is_shown:
        outside = screen.end <= 0 or screen.begin >= timeline.length
        return "not shown: it lies outside the audio" if outside else "not shown"
    if not screen.cuts:
        return "shown whole"
    cuts = [f"{format_exact(end - begin)} {_cut_text((begin, end), screen)}" for begin, end in screen.cuts]
    return f"cut off: {', '.join(cuts)}"


def overlap_text(earlier: TimelineScreen, later: TimelineScreen, span: TimeSpan) -> str:
    """Return how two screen files that overlap during `span` are shown."""
    screens = f"Screen {earlier.number} and screen {later.number}"
    overlap = f"{screens} overlap by {format_exact(span[1] - span[0])} at {format_position(span[0], 1)}"
    is_cut = any(begin < span[1] and end > span[0] for begin, end in earlier.cuts)
    shown = f"screen {earlier.number} is cut off there" if is_cut else "shown one after the other, uncut"
    return f"{overlap}: {shown}."


def _cut_text(cut: TimeSpan, screen: TimelineScreen) -> str:
    if cut[0] - screen.begin < MIN_CUT_SECONDS:
        return "at its beginning"
    return "at its end" if screen.end - cut[1] < MIN_CUT_SECONDS else f"at {format_position(cut[0], 1)}"
