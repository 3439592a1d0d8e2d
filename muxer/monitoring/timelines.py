"""How a muxed file is made up, as its timeline in the journal tells it: what is shown when, what is cut off, what overlaps.

Pure. Times are seconds from the start of the audio. The names of the screen files are left out: they are numbered from 1 on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from muxer.status.formatting import format_exact, format_position

COPY, ENCODE, PADDING, PAUSED = "copy", "encode", "padding", "paused"
# Shorter rests are the last frame of a file or the rounding of its metadata; nobody misses them.
MIN_CUT_SECONDS = 0.1

TimeSpan = tuple[float, float]


@dataclass(frozen=True)
class TimelineScreen:
    """A screen file: its number, where it lies, and the stretches of it that the muxed file does not show."""

    number: int
    begin: float
    end: float
    cuts: tuple[TimeSpan, ...]

    @property
    def is_shown(self) -> bool:
        """Whether anything of it is in the muxed file."""
        return sum(end - begin for begin, end in self.cuts) < self.end - self.begin


@dataclass(frozen=True)
class TimelinePart:
    """A part of the muxed file: copied, re-encoded (and why), padding, or blank because the recording was paused; of which
    screen file, None for the latter two."""

    begin: float
    end: float
    kind: str
    screen: int | None = None
    reason: str = ""

    @property
    def length(self) -> float:
        """How long it is."""
        return self.end - self.begin


@dataclass(frozen=True)
class TimelineView:
    """What a muxed file is made of; ``length`` is that of its audio."""

    length: float
    screens: tuple[TimelineScreen, ...]
    parts: tuple[TimelinePart, ...]

    @property
    def screen_overlaps(self) -> tuple[tuple[TimelineScreen, TimelineScreen, TimeSpan], ...]:
        """The pairs of screen files of which one begins before the other ends, and where, in the order of time."""
        found = []
        ordered = sorted(self.screens, key=lambda one: (one.begin, one.number))
        for index, earlier in enumerate(ordered):
            for later in ordered[index + 1 :]:
                if later.begin >= earlier.end:
                    break
                if (end := min(earlier.end, later.end)) - later.begin >= MIN_CUT_SECONDS:
                    found.append((earlier, later, (later.begin, end)))
        return tuple(found)

    def total_seconds(self, kind: str) -> float:
        """Return how much of the muxed file is of one kind."""
        return sum(part.length for part in self.parts if part.kind == kind)


def read_timeline(facts: Mapping[str, Any] | None) -> TimelineView | None:
    """Given the timeline of a finished target as the journal holds it, return it; None when it has none that can be read,
    such as that of a target that was only labelled, or of another version."""
    try:
        if not facts or not facts["length"] > 0:
            return None
        pieces = [_JournalPiece(**one) for one in facts["pieces"]]
        shown: dict[int | None, list[TimeSpan]] = defaultdict(list)
        for one in pieces:
            shown[one.screen].append((one.offset, one.offset + one.end - one.begin))
        screens = tuple(_create_screen(number, one, shown[number]) for number, one in enumerate(facts["screens"]))
        paused = [(float(one["begin"]), float(one["end"])) for one in facts.get("paused", ())]
        parts = (part for one in pieces for part in _split_piece(one, paused))
        return TimelineView(float(facts["length"]), screens, tuple(parts))
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class _JournalPiece:
    begin: float
    end: float
    screen: int | None
    offset: float
    reason: str | None


def _create_screen(index: int, facts: Mapping[str, Any], shown: Sequence[TimeSpan]) -> TimelineScreen:
    """Return a screen file, with what is not among the stretches of it that are shown."""
    begin, length = float(facts["start"]), float(facts["length"])
    cuts, reached = [], 0.0
    for start, end in [*sorted(shown), (length, length)]:
        if start - reached >= MIN_CUT_SECONDS:
            cuts.append((begin + reached, begin + start))
        reached = max(reached, end)
    return TimelineScreen(index + 1, begin, begin + length, tuple(cuts))


def _split_piece(piece: _JournalPiece, paused: Sequence[TimeSpan]) -> Iterator[TimelinePart]:
    """Yield the parts of the muxed file that a piece is: of padding, those that are paused are parts of their own."""
    begin, end = float(piece.begin), float(piece.end)
    if piece.screen is not None:
        kind = COPY if piece.reason is None else ENCODE
        yield TimelinePart(begin, end, kind, int(piece.screen) + 1, piece.reason or "")
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
    """Given the parts of a muxed file, join neighbours of the same kind, screen file and reason."""
    joined = []
    for _, group in groupby(parts, key=lambda part: (part.kind, part.screen, part.reason)):
        several = list(group)
        joined.append(TimelinePart(several[0].begin, several[-1].end, several[0].kind, several[0].screen, several[0].reason))
    return tuple(joined)


def timeline_summary(timeline: TimelineView) -> str:
    """Given a timeline, return in one sentence what the muxed file is made of."""
    kinds = ((COPY, "copied"), (ENCODE, "re-encoded"), (PADDING, "padding"), (PAUSED, "paused"))
    amounts = [f"{format_exact(seconds)} {word}" for kind, word in kinds if (seconds := timeline.total_seconds(kind)) > 0]
    count = len(timeline.screens)
    files = "1 screen file" if count == 1 else f"{count} screen files"
    return f"{format_exact(timeline.length)} of audio with {files}: {', '.join(amounts)}."


def screen_text(screen: TimelineScreen, timeline: TimelineView) -> str:
    """Given a screen file and its timeline, return what became of it."""
    if not screen.is_shown:
        outside = screen.end <= 0 or screen.begin >= timeline.length
        return "not shown: it lies outside the audio" if outside else "not shown"
    if not screen.cuts:
        return "shown whole"
    told = [f"{format_exact(end - begin)} {_cut_text((begin, end), screen)}" for begin, end in screen.cuts]
    return f"cut off: {', '.join(told)}"


def overlap_text(earlier: TimelineScreen, later: TimelineScreen, where: TimeSpan) -> str:
    """Given two screen files that overlap, and where, return what became of that."""
    both = f"Screen {earlier.number} and screen {later.number}"
    about = f"{both} overlap by {format_exact(where[1] - where[0])} at {format_position(where[0], 1)}"
    cut = any(begin < where[1] and end > where[0] for begin, end in earlier.cuts)
    return f"{about}: screen {earlier.number} is cut off there." if cut else f"{about}: shown one after the other, uncut."


def _cut_text(cut: TimeSpan, screen: TimelineScreen) -> str:
    if cut[0] - screen.begin < MIN_CUT_SECONDS:
        return "at its beginning"
    return "at its end" if screen.end - cut[1] < MIN_CUT_SECONDS else f"at {format_position(cut[0], 1)}"
