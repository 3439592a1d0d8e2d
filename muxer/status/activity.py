"""Counts what the muxer is doing and has done since its start, for the status page, the metrics and `status`.

A job reports from any of its threads; outside a job nothing is counted. Times are epoch seconds, sizes bytes.
"""

from __future__ import annotations

import contextvars
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

# Upper bounds of the histogram of steps: from a label to hours of re-encoding.
DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
FETCHED, STORED = "fetched", "stored"
# Further services are counted together: metadata may name any number of servers.
MAX_NAMED_SERVICES, OTHERS = 50, "others"


@dataclass
class RunningTarget:
    """A target and its step. `done` and `total` are bytes or microseconds of media, 0 when unknown."""

    recording: str
    agent: str
    file: str
    begun: float
    step: str = "check"
    step_begun: float = 0.0
    done: int = 0
    total: int = 0


@dataclass
class DurationHistogram:
    """Durations by the buckets of :data:`DURATION_BUCKETS` (the last count is for longer ones), and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS) + 1))
    seconds: float = 0.0

    def add_duration(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add_histogram(self, other: DurationHistogram) -> None:
        """Add the counts of another histogram."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds


@dataclass
class PollStatistics:
    """The polls so far. `seconds`, `result`: of the last successful one; `next_due` None: a poll runs.

    `oldest_open` is the start of the oldest call without its muxed file. `reach`: how many seconds of the window that poll
    read; `whole_success`: when a poll that read the whole window ended, after `whole_seconds`; `whole_due`: when the next
    one does so.
    """

    succeeded: int = 0
    failed: int = 0
    begun: float | None = None
    last_success: float | None = None
    seconds: float = 0.0
    result: dict[str, int] = field(default_factory=dict)
    error: str = ""
    oldest_open: float | None = None
    next_due: float | None = None
    reach: float | None = None
    whole_success: float | None = None
    whole_due: float | None = None
    whole_seconds: float = 0.0


@dataclass
class WorkTotals:
    """Totals since the start, by outcome, step, direction and service, or method (``copy``, ``re-encode``)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    steps: dict[str, DurationHistogram] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    muxed_seconds: float = 0.0
    padding_seconds: float = 0.0


@dataclass(frozen=True)
class ActivitySnapshot:
    """All numbers at one time."""

    at: float
    started: float
    running: tuple[RunningTarget, ...]
    polls: PollStatistics
    totals: WorkTotals


_current: contextvars.ContextVar[tuple[Activity, RunningTarget] | None] = contextvars.ContextVar("running", default=None)


class Activity:
    """The activity of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.time()
        self._running: dict[str, RunningTarget] = {}
        self._named: set[str] = set()
        self._polls, self._totals = PollStatistics(), WorkTotals()

    @contextmanager
    def track_target(self, recording: str, agent: str, file: str) -> Iterator[None]:
        """Within this block, count the work of this thread, and of threads that copy its context, as work on `file`."""
        now = time.time()
        running = RunningTarget(recording, agent, file, now, step_begun=now)
        with self._lock:
            self._running[file] = running
        token = _current.set((self, running))
        try:
            yield
        finally:
            _current.reset(token)
            with self._lock:
                self._running.pop(file, None)

    def count_outcome(self, outcome: str, facts: Mapping[str, Any]) -> None:
        """Count a finished target. `facts` are the fields of its line in the log."""
        with self._lock:
            self._totals.outcomes[outcome] += 1
            if "method" in facts:
                self._totals.methods["copy" if facts["method"] == "copy" else "re-encode"] += 1
                self._totals.muxed_seconds += facts["length"]
                self._totals.padding_seconds += facts["padding"]

    def add_totals(self, totals: WorkTotals) -> None:
        """Add the steps, bytes and errors of a worker of the fleet."""
        with self._lock:
            for name, histogram in totals.steps.items():
                self._totals.steps.setdefault(name, DurationHistogram()).add_histogram(histogram)
            self._totals.repeats.update(totals.repeats)
            for direction, service in totals.moved:
                self._totals.moved[direction, self._service_label(service)] += totals.moved[direction, service]
            for service, kind in totals.errors:
                self._totals.errors[self._service_label(service), kind] += totals.errors[service, kind]

    def count_error(self, service: str, kind: str) -> None:
        """Count an error of a target or a poll. `service` is the one that failed, empty for none."""
        with self._lock:
            self._totals.errors[self._service_label(service), kind] += 1

    def count_bytes(self, direction: str, service: str, size: int) -> None:
        """Count the bytes of a finished transfer. `direction` is :data:`FETCHED` or :data:`STORED`."""
        with self._lock:
            self._totals.moved[direction, self._service_label(service)] += size

    def record_poll_start(self) -> None:
        """Record the start of a poll."""
        with self._lock:
            self._polls.begun, self._polls.next_due = time.time(), None

    def record_poll_success(self, result: Mapping[str, int], seconds: float, oldest_open: float | None) -> None:
        """Record the end of a successful poll. `result` counts recordings and targets by kind."""
        with self._lock:
            earlier = self._polls
            self._polls = PollStatistics(
                earlier.succeeded + 1, earlier.failed, earlier.begun, time.time(), seconds, dict(result)
            )
            self._polls.oldest_open = oldest_open
            self._polls.whole_success, self._polls.whole_seconds = earlier.whole_success, earlier.whole_seconds

    def record_reach(self, reach: float, *, is_whole: bool, seconds_to_whole: float) -> None:
        """Record how far the last successful poll went back, and when the next one reads the whole window."""
        with self._lock:
            self._polls.reach, self._polls.whole_due = reach, time.time() + seconds_to_whole
            if is_whole:
                self._polls.whole_success, self._polls.whole_seconds = self._polls.last_success, self._polls.seconds

    def record_poll_failure(self, error: str) -> None:
        """Record why a poll failed."""
        with self._lock:
            self._polls.failed += 1
            self._polls.error = error

    def schedule_next_poll(self, seconds: float) -> None:
        """Record that the next poll starts in `seconds`."""
        with self._lock:
            self._polls.next_due = time.time() + seconds

    def take_snapshot(self) -> ActivitySnapshot:
        """Return a copy of all numbers."""
        with self._lock:
            running = tuple(self._running.values())
            return ActivitySnapshot(time.time(), self._started, *deepcopy((running, self._polls, self._totals)))

    def _service_label(self, service: str) -> str:
        if len(self._named) < MAX_NAMED_SERVICES:
            self._named.add(service)
        return service if service in self._named else OTHERS

    def _begin_step(self, running: RunningTarget, name: str) -> None:
        with self._lock:
            running.step, running.step_begun, running.done, running.total = name, time.time(), 0, 0

    def _count_step(self, name: str, seconds: float) -> None:
        with self._lock:
            self._totals.steps.setdefault(name, DurationHistogram()).add_duration(seconds)

    def _count_repeat(self, running: RunningTarget) -> None:
        with self._lock:
            self._totals.repeats[running.step] += 1

    def _set_progress(self, running: RunningTarget, done: int, total: int) -> None:
        with self._lock:
            running.done += done
            running.total += total


def begin_step(name: str) -> None:
    """Record the step that the target of this thread begins."""
    if (current := _current.get()) is not None:
        current[0]._begin_step(current[1], name)


def count_step(name: str, seconds: float) -> None:
    """Count a successful step and its duration."""
    if (current := _current.get()) is not None:
        current[0]._count_step(name, seconds)


def count_repeat() -> None:
    """Count an immediate retry of the current step."""
    if (current := _current.get()) is not None:
        current[0]._count_repeat(current[1])


def set_expected_amount(amount: int) -> None:
    """Add to the expected amount of the current step: bytes of a transfer or microseconds of media."""
    if (current := _current.get()) is not None:
        current[0]._set_progress(current[1], 0, amount)


def add_progress(amount: int) -> None:
    """Add to the finished amount of the current step."""
    if (current := _current.get()) is not None:
        current[0]._set_progress(current[1], amount, 0)


def count_transfer(direction: str, service: str, size: int) -> None:
    """Count the bytes of a finished transfer by a job."""
    if (current := _current.get()) is not None:
        current[0].count_bytes(direction, service, size)
