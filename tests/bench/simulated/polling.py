"""Simulated polls of muxer/polling and muxer/fleet/executor.py: their cost, and when each recording is found."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

from muxer.polling.schedule import PollSchedule, next_newest_pass
from tests.bench.simulated.costs import POLL_CPU
from tests.bench.simulated.day import Day

SLICE_SIZE = 100
# Assumed: each further recording of a page costs RWS this many seconds.
RECORDING_SECONDS = 0.0003
# The interval at which a long poll checks whether workers become idle; the product checks after each slice.
CHECK_INTERVAL = 5.0
# The delay before the next poll when the queue has capacity again (muxer/app/daemon.py: LEAST_REST_SECONDS).
MIN_REST_SECONDS = 5.0
# A number whose multiples are spread evenly over 0 to 1: the order in which RWS returns a window is arbitrary.
GOLDEN = 0.618033988749895


@dataclass(frozen=True)
class PollWindow:
    """A poller's options, in seconds; of ``shards`` pollers on one window it is number ``shard``. ``whole``: each poll
    reads the whole window; ``page`` and ``queries``: pagination and concurrent_queries."""

    past: float = 12 * 3600.0
    older_than: float = 0.0
    interval: float = 300.0
    shards: int = 1
    shard: int = 0
    whole: bool = False
    page: int = 100
    queries: int = 1

    def create_schedule(self) -> PollSchedule:
        """Return the schedule of a poller that has just started."""
        return PollSchedule(self.past - self.older_than, self.interval, always_whole=self.whole)

    def limit_reach(self, reach: float) -> PollWindow:
        """Return the part of the window that a pass over ``reach`` seconds reads."""
        return replace(self, past=self.older_than + reach)

    def select_due(self, day: Day, recordings: Sequence[int], now: float) -> list[int]:
        """Return the recordings that a pass that starts now selects."""
        oldest, last, start = now - self.past, bisect_right(day.end, now - self.older_than), day.start
        shards, shard = self.shards, self.shard
        return [
            recording
            for recording in recordings
            if recording < last and start[recording] >= oldest and recording % shards == shard
        ]

    def count_recordings(self, day: Day, now: float) -> int:
        """Return the number of recordings that a pass that starts now reads, by their sorted end times."""
        return max(0, bisect_right(day.end, now - self.older_than) - bisect_left(day.end, now - self.past))


@dataclass(frozen=True)
class PassCost:
    """The cost of a pass: pages, slices whose screen recordings it reads, seconds."""

    pages: int
    slices: int
    seconds: float


def pass_cost(window: PollWindow, length: int, known: int, page_seconds: float) -> PassCost:
    """Given a window, its number of recordings, how many of them this poll has read already, and the time of one
    request, return what a pass costs. Pages follow one another, slices are read next to them. Shards read all pages, and
    the screen recordings of their share."""
    pages = max(1, ceil(length / window.page))
    slices = ceil(max(0, length - known) / window.shards / SLICE_SIZE)
    in_pages = pages * (page_seconds + max(0, min(length, window.page) - SLICE_SIZE) * RECORDING_SECONDS)
    waited = max(in_pages, (in_pages + slices * page_seconds) / window.queries)
    return PassCost(pages, slices, waited + POLL_CPU * length)


class PollSite(Protocol):
    """The services that a poller calls."""

    @property
    def now(self) -> float:
        """The current time in seconds."""

    def is_over(self) -> bool:
        """Return whether all work is done."""

    def open_recordings(self) -> Sequence[int]:
        """Return the recordings whose calls have ended and that have no task."""

    def order_recordings(self, found: Sequence[int]) -> bool:
        """Publish tasks for the newest of some recordings, up to the queue limit. Returns whether all were published."""

    def is_closed(self, age: float) -> bool:
        """Return whether the queue has no capacity for older calls."""

    def has_capacity_again(self) -> bool:
        """Return whether every queue has capacity."""

    def needs_work(self) -> bool:
        """Return whether some workers will soon be idle."""

    def record_requests(self, requests: int, seconds: float) -> None:
        """Record requests to RWS, spread over the next `seconds`."""


class SimulatedPoller:
    """One poller. :meth:`run` yields the delay before it continues."""

    def __init__(self, window: PollWindow, day: Day, page_seconds: float, site: PollSite) -> None:
        self._window, self._day, self._page_seconds, self._site = window, day, page_seconds, site
        self._schedule, self._rejected = window.create_schedule(), 0.0
        self._number = 0
        self._met: set[int] = set()
        self._bare: set[int] = set()
        self._found: list[int] = []
        self._newest_due = self._newest_read = 0.0
        self._is_starved = False
        self.polls: list[float] = []

    def run(self) -> Iterator[float]:
        """Poll until the simulation is over."""
        while not self._site.is_over():
            started = self._site.now
            yield from self._poll()
            self.polls.append(self._site.now - started)
            while (left := started + self._window.interval - self._site.now) > 0:
                yield min(left, MIN_REST_SECONDS)
                if self._is_starved and self._site.has_capacity_again():
                    break

    def _poll(self) -> Iterator[float]:
        """Read as far back as is due, the newest calls first in a long poll, while the queue has capacity for older ones.
        Recordings that found no room are read again by the next poll."""
        self._met, self._bare, self._found, self._is_starved = set(), set(), [], False
        started, before = self._site.now, None
        reach = max(self._schedule.due_reach(started), self._rejected)
        self._rejected = 0.0
        passes = self._schedule.plan_passes(reach)
        first = self._window.limit_reach(passes[0])
        for length in passes:
            if before is not None and self._site.is_closed(before.past):
                self._is_starved = True
                return
            known = before.count_recordings(self._day, self._site.now) if before else 0
            part, began = self._window.limit_reach(length), self._site.now
            yield from self._pass(part, known, first if before else None)
            self._schedule.record_pass(length, began)
            self._rejected = length if self._is_starved else self._rejected
            before = part
        self._schedule.record_duration(reach, self._site.now - started)

    def _pass(self, reach: PollWindow, known: int, newest: PollWindow | None) -> Iterator[float]:
        """Read a window, and the newest calls again after each poll interval. Publish tasks for what was
        found at the end of each."""
        started, self._number = self._site.now, self._number + 1
        cost = pass_cost(reach, reach.count_recordings(self._day, started), known, self._page_seconds)
        self._site.record_requests(cost.pages + cost.slices, cost.seconds)
        left, read, requests = self._positions(reach, started), 0.0, cost.pages + cost.slices
        while read < 1.0:
            due = self._newest_due - self._site.now if newest else cost.seconds
            # There is at least one slice between two reads of the newest calls.
            part = min(1.0 - read, max(min(due, CHECK_INTERVAL) / cost.seconds, 2 / requests))
            yield part * cost.seconds
            read += part
            self._read_until(left, read if read < 1.0 - 1e-9 else 1.0, newest is None)
            if self._found and self._site.needs_work():
                self._publish_found()
            if newest and read < 1.0 and self._site.now >= self._newest_due:
                last = self._newest_read
                length = newest.count_recordings(self._day, self._site.now)
                ended = replace(newest, past=newest.older_than + self._site.now - last).count_recordings(
                    self._day, self._site.now
                )
                yield from self._pass(newest, length - ended - len(self._bare), None)
        self._publish_found()
        if newest is None:
            self._newest_read = started
            self._newest_due = next_newest_pass(started, self._site.now, self._window.interval)

    def _publish_found(self) -> None:
        self._is_starved |= not self._site.order_recordings(self._found)
        self._found = []

    def _positions(self, reach: PollWindow, now: float) -> deque[tuple[float, int]]:
        """Return the positions in a pass, from 0 to 1, of the open recordings that this poll has not read yet."""
        open_ = (one for one in reach.select_due(self._day, self._site.open_recordings(), now) if one not in self._met)
        return deque(sorted((((one + self._number) * GOLDEN) % 1.0, one) for one in open_))

    def _read_until(self, left: deque[tuple[float, int]], until: float, newest: bool) -> None:
        """Read the recordings up to a position. Those with screen files need a task; those of the
        ``newest`` that have none yet are looked at once more in this poll."""
        now, ready = self._site.now, self._day.ready
        while left and left[0][0] <= until:
            _, recording = left.popleft()
            if recording in self._met:
                continue
            if ready[recording] <= now:
                self._found.append(recording)
            elif newest or self._day.start[recording] >= now - self._window.older_than - self._schedule.shortest:
                self._bare.add(recording)
                continue
            self._bare.discard(recording)
            self._met.add(recording)
