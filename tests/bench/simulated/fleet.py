"""A day of a fleet: pollers, the broker's queues, workers, and their statistics."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from muxer.fleet.priority_queues import has_room_everywhere, needs_work_soon
from tests.bench.simulated.costs import RWS_FIRST, RWS_REQUESTS, Costs, source_bytes
from tests.bench.simulated.day import Day
from tests.bench.simulated.events import EventLoop
from tests.bench.simulated.polling import PollWindow, SimulatedPoller
from tests.bench.simulated.queues import SimulatedWorkers, queue_of_age

PERIOD_SECONDS = 600.0
# Operations of the broker for a recording, without the events that each poller reads: task published and its event; task
# taken, lock created and event; event, lock deleted and task acknowledged.
QUEUED_OPS, BEGUN_OPS, DONE_OPS, EVENTS = 2, 3, 3, 3
WAITING, QUEUED, DONE, LEFT = range(4)


@dataclass(frozen=True)
class SimulatedFleet:
    """The number of workers, the pollers, the limit of waiting messages, and the start time."""

    workers: int
    windows: Sequence[PollWindow] = (PollWindow(),)
    max_queue: float = 5000
    begin: float = 0.0


@dataclass
class SimulationResult:
    """What was counted. ``delays``: seconds from a screen file in RWS to the muxed file, for each that was done; ``rws``,
    ``bytes``, ``broker``: by ten minutes; ``left``: recordings that left every window before there was room for them."""

    delays: array[float] = field(default_factory=lambda: array("d"))
    rws: Counter[int] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)
    broker: Counter[int] = field(default_factory=Counter)
    left: int = 0
    finished: float = 0.0


class Simulation:
    """One day. After :meth:`run`: ``seen``, ``workers`` with the waits, ``pollers`` with their polls, ``state`` of each
    recording."""

    def __init__(self, day: Day, fleet: SimulatedFleet, costs: Costs) -> None:
        self._day, self._fleet, self._costs = day, fleet, costs
        self._events, self.seen = EventLoop(), SimulationResult()
        threads = fleet.workers * costs.threads
        self.workers = SimulatedWorkers(
            self._events, threads, fleet.max_queue, self._job_seconds, self._on_job_started, self._on_job_done
        )
        self.pollers = [SimulatedPoller(window, day, costs.page_seconds, self) for window in fleet.windows]
        self.state = bytearray(len(day))
        self._open: list[int] = []
        self._ended = 0
        self._over = 0

    def run(self) -> Simulation:
        """Simulate the day, and the time after it until every recording is done or has left the windows."""
        for poller in self.pollers:
            self._events.schedule_action(self._fleet.begin, self._advance_poller, poller.run())
        self._events.run()
        return self

    def _advance_poller(self, process: Iterator[float]) -> None:
        wait = next(process, None)
        if wait is not None:
            self._events.schedule_action(self._events.now + wait, self._advance_poller, process)

    @property
    def now(self) -> float:
        """The current time in seconds."""
        return self._events.now

    def is_over(self) -> bool:
        """Return whether every recording is done or has left the windows."""
        return self._over == len(self._day)

    def open_recordings(self) -> Sequence[int]:
        """Return the recordings whose calls have ended, that have no task, and that are in the window."""
        kept = [one for one in self._open if self.state[one] == WAITING]
        while self._ended < len(self._day) and self._day.end[self._ended] <= self.now:
            kept.append(self._ended)
            self._ended += 1
        oldest = self.now - max(window.past for window in self._fleet.windows)
        self._open = [one for one in kept if self._day.start[one] >= oldest]
        if left := set(kept).difference(self._open):
            self.seen.left += len(left)
            self._over += len(left)
            for one in left:
                self.state[one] = LEFT
        return self._open

    def order_recordings(self, found: Sequence[int]) -> bool:
        """Publish tasks for the newest of some recordings, up to the queue limit. Returns whether all were published."""
        start, had_room = self._day.start, True
        for recording in sorted(found, key=start.__getitem__, reverse=True):
            queue = queue_of_age(self.now - start[recording])
            if self.state[recording] != WAITING:
                continue
            if not self.workers.has_room(queue):
                had_room = False
                break
            self.state[recording] = QUEUED
            self.workers.queue_recording(recording, queue)
            self._count_broker_operations(QUEUED_OPS)
        return had_room

    def is_closed(self, age: float) -> bool:
        """Return whether the queue has no capacity for older calls."""
        return not self.workers.has_room(queue_of_age(age))

    def has_capacity_again(self) -> bool:
        """Return whether every queue has capacity."""
        return has_room_everywhere([self.workers.queued], int(self._fleet.max_queue))

    def needs_work(self) -> bool:
        """Return whether some workers will soon be idle."""
        return needs_work_soon([self.workers.queued], self._fleet.workers * self._costs.threads)

    def record_requests(self, requests: int, seconds: float) -> None:
        """Record requests to RWS, spread over the next `seconds`."""
        first, last = int(self.now // PERIOD_SECONDS), int((self.now + seconds) // PERIOD_SECONDS)
        for period in range(first, last + 1):
            part = min(self.now + seconds, (period + 1) * PERIOD_SECONDS) - max(self.now, period * PERIOD_SECONDS)
            self.seen.rws[period] += round(requests * part / seconds)

    def _job_seconds(self, recording: int, busy: int) -> float:
        return self._costs.job_seconds(self._day.call_seconds(recording), busy)

    def _on_job_started(self, recording: int) -> None:
        period = int(self.now // PERIOD_SECONDS)
        self.seen.rws[period] += RWS_FIRST
        self.seen.bytes[period] += int(source_bytes(self._day.call_seconds(recording)))
        self._count_broker_operations(BEGUN_OPS)

    def _on_job_done(self, recording: int) -> None:
        period = int(self.now // PERIOD_SECONDS)
        self.state[recording] = DONE
        self._over += 1
        self.seen.finished = self.now
        self.seen.delays.append(self.now - self._day.ready[recording])
        self.seen.rws[period] += RWS_REQUESTS - RWS_FIRST
        self.seen.bytes[period] += int(source_bytes(self._day.call_seconds(recording)))
        self._count_broker_operations(DONE_OPS + EVENTS * len(self._fleet.windows))

    def _count_broker_operations(self, operations: int) -> None:
        self.seen.broker[int(self.now // PERIOD_SECONDS)] += operations
