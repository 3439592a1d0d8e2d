"""How a muxed file is made up, as its timeline in the journal tells it: what is shown when, what is cut off, what overlaps.

Pure. Times are seconds from the start of the audio. The names of the screen files are left out: they are numbered from 1 on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from muxer.monitoring.words import exact, position

COPY, ENCODE, PADDING, PAUSED = "copy", "encode", "padding", "paused"
# Shorter rests are the last frame of a file or the rounding of its metadata; nobody misses them.
LEAST_CUT = 0.1

Stretch = tuple[float, float]


@dataclass(frozen=True)
class Screen:
    """A screen file: its number, where it lies, and the stretches of it that the muxed file does not show."""

    number: int
    begin: float
    end: float
    cuts: tuple[Stretch, ...]

    @property
    def shown(self) -> bool:
        """Whether anything of it is in the muxed file."""
        return sum(end - begin for begin, end in self.cuts) < self.end - self.begin


@dataclass(frozen=True)
class Part:
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
class Timeline:
    """What a muxed file is made of; ``length`` is that of its audio."""

    length: float
    screens: tuple[Screen, ...]
    parts: tuple[Part, ...]

    @property
    def overlaps(self) -> tuple[tuple[Screen, Screen, Stretch], ...]:
        """The pairs of screen files of which one begins before the other ends, and where, in the order of time."""
        found = []
        ordered = sorted(self.screens, key=lambda one: (one.begin, one.number))
        for index, earlier in enumerate(ordered):
            for later in ordered[index + 1 :]:
                if later.begin >= earlier.end:
                    break
                if (end := min(earlier.end, later.end)) - later.begin >= LEAST_CUT:
                    found.append((earlier, later, (later.begin, end)))
        return tuple(found)

    def seconds(self, kind: str) -> float:
        """Return how much of the muxed file is of one kind."""
        return sum(part.length for part in self.parts if part.kind == kind)


def read(facts: Mapping[str, Any] | None) -> Timeline | None:
    """Given the timeline of a finished target as the journal holds it, return it; None when it has none that can be read,
    such as that of a target that was only labelled, or of another version."""
    try:
        if not facts or not facts["length"] > 0:
            return None
        pieces = [_Piece(**one) for one in facts["pieces"]]
        shown: dict[int | None, list[Stretch]] = defaultdict(list)
        for one in pieces:
            shown[one.screen].append((one.offset, one.offset + one.end - one.begin))
        screens = tuple(_screen(number, one, shown[number]) for number, one in enumerate(facts["screens"]))
        paused = [(float(one["begin"]), float(one["end"])) for one in facts.get("paused", ())]
        parts = (part for one in pieces for part in _parts(one, paused))
        return Timeline(float(facts["length"]), screens, tuple(parts))
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class _Piece:
    begin: float
    end: float
    screen: int | None
    offset: float
    reason: str | None


def _screen(index: int, facts: Mapping[str, Any], shown: Sequence[Stretch]) -> Screen:
    """Return a screen file, with what is not among the stretches of it that are shown."""
    begin, length = float(facts["start"]), float(facts["length"])
    cuts, reached = [], 0.0
    for start, end in [*sorted(shown), (length, length)]:
        if start - reached >= LEAST_CUT:
            cuts.append((begin + reached, begin + start))
        reached = max(reached, end)
    return Screen(index + 1, begin, begin + length, tuple(cuts))


def _parts(piece: _Piece, paused: Sequence[Stretch]) -> Iterator[Part]:
    """Yield the parts of the muxed file that a piece is: of padding, those that are paused are parts of their own."""
    begin, end = float(piece.begin), float(piece.end)
    if piece.screen is not None:
        kind = COPY if piece.reason is None else ENCODE
        yield Part(begin, end, kind, int(piece.screen) + 1, piece.reason or "")
        return
    for span in paused:
        if begin < span[1] and span[0] < end:
            if begin < span[0]:
                yield Part(begin, span[0], PADDING)
            begin = min(span[1], end)
            yield Part(max(span[0], float(piece.begin)), begin, PAUSED)
    if begin < end:
        yield Part(begin, end, PADDING)


def merged(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Given the parts of a muxed file, join neighbours of the same kind, screen file and reason."""
    joined = []
    for _, group in groupby(parts, key=lambda part: (part.kind, part.screen, part.reason)):
        several = list(group)
        joined.append(Part(several[0].begin, several[-1].end, several[0].kind, several[0].screen, several[0].reason))
    return tuple(joined)


def summary(timeline: Timeline) -> str:
    """Given a timeline, return in one sentence what the muxed file is made of."""
    kinds = ((COPY, "copied"), (ENCODE, "re-encoded"), (PADDING, "padding"), (PAUSED, "paused"))
    amounts = [f"{exact(seconds)} {word}" for kind, word in kinds if (seconds := timeline.seconds(kind)) > 0]
    count = len(timeline.screens)
    files = "1 screen file" if count == 1 else f"{count} screen files"
    return f"{exact(timeline.length)} of audio with {files}: {', '.join(amounts)}."


def screen_words(screen: Screen, timeline: Timeline) -> str:
    """Given a screen file and its timeline, return what became of it."""
    if not screen.shown:
        outside = screen.end <= 0 or screen.begin >= timeline.length
        return "not shown: it lies outside the audio" if outside else "not shown"
    if not screen.cuts:
        return "shown whole"
    told = [f"{exact(end - begin)} {_where((begin, end), screen)}" for begin, end in screen.cuts]
    return f"cut off: {', '.join(told)}"


def overlap_words(earlier: Screen, later: Screen, where: Stretch) -> str:
    """Given two screen files that overlap, and where, return what became of that."""
    both = f"Screen {earlier.number} and screen {later.number}"
    about = f"{both} overlap by {exact(where[1] - where[0])} at {position(where[0], 1)}"
    cut = any(begin < where[1] and end > where[0] for begin, end in earlier.cuts)
    return (
        f"{about}: screen {earlier.number} is cut off there." if cut else f"{about}: shown one after the other, uncut."
    )


def _where(cut: Stretch, screen: Screen) -> str:
    if cut[0] - screen.begin < LEAST_CUT:
        return "at its beginning"
    return "at its end" if screen.end - cut[1] < LEAST_CUT else f"at {position(cut[0], 1)}"
