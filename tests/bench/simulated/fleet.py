"""A day of a fleet: pollers, the broker's lanes, workers; and what was counted meanwhile."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.simulated.costs import RWS_FIRST, RWS_REQUESTS, Costs, size
from tests.bench.simulated.day import Day
from tests.bench.simulated.events import Events
from tests.bench.simulated.lanes import Workers, lane_of
from tests.bench.simulated.polls import Window, cost, slices

PERIOD = 600.0
# Operations of the broker for a recording, without the events that each poller reads: order published and its event; order
# taken, lock made and event; event, lock removed and order acknowledged.
QUEUED_OPS, BEGUN_OPS, DONE_OPS, EVENTS = 2, 3, 3, 3
WAITING, QUEUED, DONE, LEFT = range(4)


@dataclass(frozen=True)
class Fleet:
    """How many workers, which pollers, how many messages may wait, and when all of it starts."""

    workers: int
    windows: Sequence[Window] = (Window(),)
    max_queue: float = 5000
    begin: float = 0.0


@dataclass
class Seen:
    """What was counted. ``delays``: seconds from a screen file in RWS to the muxed file, for each that was done; ``polls``:
    how long each lasted; ``rws``, ``bytes``, ``broker``: by ten minutes; ``left``: recordings that left every window before
    there was room for them."""

    delays: array[float] = field(default_factory=lambda: array("d"))
    polls: list[float] = field(default_factory=list)
    rws: Counter[int] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)
    broker: Counter[int] = field(default_factory=Counter)
    left: int = 0
    finished: float = 0.0


class Simulation:
    """One day. After :meth:`run`: ``seen``, ``workers`` with the waits, ``state`` of each recording."""

    def __init__(self, day: Day, fleet: Fleet, costs: Costs) -> None:
        self._day, self._fleet, self._costs = day, fleet, costs
        self._events, self.seen = Events(), Seen()
        threads = fleet.workers * costs.threads
        self.workers = Workers(self._events, threads, fleet.max_queue, self._job_seconds, self._begun, self._done)
        self.state = bytearray(len(day))
        self._open: list[int] = []
        self._ended = 0
        self._over = 0
        self._number = 0

    def run(self) -> Simulation:
        """Let the day happen, and what comes after it until every recording is done or has left the windows."""
        for window in self._fleet.windows:
            self._events.at(self._fleet.begin, self._poll, window)
        self._events.run()
        return self

    def _poll(self, window: Window) -> None:
        self._pass(window, window.passes, self._events.now)

    def _pass(self, window: Window, passes: Sequence[Window], begun: float) -> None:
        """Read the first of the passes that are left of a poll; then the next one, or what comes after the poll."""
        now, (reach, *left) = self._events.now, passes
        self._look(now)
        poll = cost(reach, reach.length(self._day, now), self._costs.page_seconds)
        self._number += 1
        self._spread(self.seen.rws, poll.pages + poll.slices, now, poll.seconds)
        for moment, found in slices(self._day, reach, poll, now, self._number, self._open):
            self._events.at(moment, self._offer, found)
        end = now + poll.seconds
        if left:
            self._events.at(end, self._pass, window, left, begun)
            return
        self.seen.polls.append(end - begun)
        if self._over < len(self._day):
            self._events.at(max(begun + window.interval, end), self._poll, window)

    def _look(self, now: float) -> None:
        """Take over which calls have ended, and which have left every window."""
        kept = [one for one in self._open if self.state[one] == WAITING]
        while self._ended < len(self._day) and self._day.end[self._ended] <= now:
            kept.append(self._ended)
            self._ended += 1
        oldest = now - max(window.past for window in self._fleet.windows)
        self._open = [one for one in kept if self._day.start[one] >= oldest]
        if left := set(kept).difference(self._open):
            self.seen.left += len(left)
            self._over += len(left)
            for one in left:
                self.state[one] = LEFT

    def _offer(self, found: Sequence[int]) -> None:
        now, start, workers = self._events.now, self._day.start, self.workers
        for recording in found:
            lane = lane_of(now - start[recording])
            if self.state[recording] == WAITING and workers.has_room(lane):
                self.state[recording] = QUEUED
                workers.queue(recording, lane)
                self._count_broker(QUEUED_OPS)

    def _job_seconds(self, recording: int, busy: int) -> float:
        return self._costs.job_seconds(self._day.seconds(recording), busy)

    def _begun(self, recording: int) -> None:
        period = int(self._events.now // PERIOD)
        self.seen.rws[period] += RWS_FIRST
        self.seen.bytes[period] += int(size(self._day.seconds(recording)))
        self._count_broker(BEGUN_OPS)

    def _done(self, recording: int) -> None:
        now = self._events.now
        period = int(now // PERIOD)
        self.state[recording] = DONE
        self._over += 1
        self.seen.finished = now
        self.seen.delays.append(now - self._day.ready[recording])
        self.seen.rws[period] += RWS_REQUESTS - RWS_FIRST
        self.seen.bytes[period] += int(size(self._day.seconds(recording)))
        self._count_broker(DONE_OPS + EVENTS * len(self._fleet.windows))

    def _count_broker(self, operations: int) -> None:
        self.seen.broker[int(self._events.now // PERIOD)] += operations

    @staticmethod
    def _spread(counted: Counter[int], number: int, begin: float, seconds: float) -> None:
        """Count what happens evenly from a moment on."""
        first, last = int(begin // PERIOD), int((begin + seconds) // PERIOD)
        for period in range(first, last + 1):
            part = min(begin + seconds, (period + 1) * PERIOD) - max(begin, period * PERIOD)
            counted[period] += round(number * part / seconds)
