"""Polls: which recordings of the window are found when, and what that costs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from muxer.fleet.lanes import passes
from tests.bench.simulated.costs import POLL_CPU
from tests.bench.simulated.day import Day

PAGE = 100
# A number whose multiples fall evenly over 0 to 1: RWS returns a window in an order of its own.
GOLDEN = 0.618033988749895


@dataclass(frozen=True)
class Window:
    """A poller's options, in seconds; of ``shards`` pollers on one window it is number ``shard``. ``in_order``: RWS returns
    the oldest recordings first, else in no order."""

    past: float = 12 * 3600.0
    older_than: float = 0.0
    interval: float = 300.0
    shards: int = 1
    shard: int = 0
    in_order: bool = False

    @property
    def passes(self) -> list[Window]:
        """The windows that one poll reads, one after the other."""
        return [replace(self, past=60 * reach) for reach in passes(self.past / 60, self.older_than / 60)]

    def among(self, day: Day, recordings: Sequence[int], now: float) -> list[int]:
        """Return those of some recordings that a pass that begins now takes."""
        oldest, last, start = now - self.past, bisect_right(day.end, now - self.older_than), day.start
        shards, shard = self.shards, self.shard
        return [one for one in recordings if one < last and start[one] >= oldest and one % shards == shard]

    def length(self, day: Day, now: float) -> int:
        """Return how many recordings a pass that begins now has to read: by their ends, which are sorted."""
        return bisect_right(day.end, now - self.older_than) - bisect_left(day.end, now - self.past)


@dataclass(frozen=True)
class Poll:
    """What a pass of a poll costs: pages, slices whose screen recordings it reads, seconds, those of a processor."""

    pages: int
    slices: int
    seconds: float
    cpu: float


def cost(window: Window, length: int, page_seconds: float) -> Poll:
    """Given a window, how many recordings are in it and the time of one request, return what a pass costs: one request after
    the other. Shards read all pages, and the screen recordings of their share."""
    pages, slices = max(1, ceil(length / PAGE)), ceil(length / window.shards / PAGE)
    cpu = POLL_CPU * length
    return Poll(pages, slices, (pages + slices) * page_seconds + cpu, cpu)


def slices(
    day: Day, window: Window, poll: Poll, now: float, number: int, open_: Sequence[int]
) -> Iterator[tuple[float, list[int]]]:
    """Given a pass that begins now, its number, and the recordings that nobody has queued yet, yield the moments at which it
    reads slices, and those of the open recordings that it finds there with their screen files."""
    found: dict[int, list[int]] = {}
    first, parts = bisect_left(day.end, now - window.past), max(1, poll.slices)
    place = _in_order(first, poll) if window.in_order else lambda one: int(((one + number) * GOLDEN) % 1.0 * parts)
    for recording in window.among(day, open_, now):
        found.setdefault(min(parts - 1, place(recording)), []).append(recording)
    for part in sorted(found):
        moment = now + poll.seconds * (part + 1) / parts
        yield moment, [one for one in found[part] if day.ready[one] <= moment]


def _in_order(first: int, poll: Poll) -> Callable[[int], int]:
    """Return the number of the slice in which a recording comes when the oldest are first."""
    return lambda recording: (recording - first) * poll.slices // (poll.pages * PAGE)
