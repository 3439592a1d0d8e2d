"""What the muxer is doing now and has done since its start, in numbers: one place for the page, the metrics and ``status``.

A job says what it does with :func:`step`, :func:`expect` and :func:`advance`, from any of its threads; outside a job they do
nothing. Times are epoch seconds, durations seconds, sizes bytes.
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

# The upper bounds of the classes in which durations of steps are counted: from a label to hours of re-encoding.
DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
FETCHED, STORED = "fetched", "stored"
# So many services are counted by name, the others together: metadata name servers as they like.
MAX_NAMED_SERVICES, OTHERS = 50, "others"


@dataclass
class RunningTarget:
    """A target that a worker has begun: whose it is, the step it is in, and how far that is.

    ``done`` and ``total`` are bytes of a transfer or microseconds of media, 0 where nobody knows.
    """

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
    """How long something took: how often it took no longer than each of :data:`BOUNDS`, or longer (the last); and in all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS) + 1))
    seconds: float = 0.0

    def add_duration(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add_histogram(self, other: DurationHistogram) -> None:
        """Count those of somebody else, too."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds


@dataclass
class PollStatistics:
    """The polls so far: how many succeeded and failed, what the last one that succeeded met, why the last one failed.

    ``oldest_open`` is when the oldest call began that the last complete poll found without its muxed file; None = none.
    ``next_due`` is when the next poll is due; None while one runs, and before the first has ended.
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


@dataclass
class WorkTotals:
    """What was done since the start: targets by outcome, steps, repeated tries by step, bytes by direction and
    service, errors by service and type, results by method (``copy``, ``re-encode``), seconds of result and of padding."""

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
    """Everything at one moment; it changes no more."""

    at: float
    started: float
    running: tuple[RunningTarget, ...]
    polls: PollStatistics
    totals: WorkTotals


_current: contextvars.ContextVar[tuple[Activity, RunningTarget] | None] = contextvars.ContextVar("running", default=None)


class Activity:
    """What happens in this process. Safe to use from any thread."""

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
        """Given how a target ended and what its finished line says, count it."""
        with self._lock:
            self._totals.outcomes[outcome] += 1
            if "method" in facts:
                self._totals.methods["copy" if facts["method"] == "copy" else "re-encode"] += 1
                self._totals.muxed_seconds += facts["length"]
                self._totals.padding_seconds += facts["padding"]

    def add_totals(self, totals: WorkTotals) -> None:
        """Count what was done elsewhere, by a worker of the fleet: its steps, bytes and errors."""
        with self._lock:
            for name, one in totals.steps.items():
                self._totals.steps.setdefault(name, DurationHistogram()).add_histogram(one)
            self._totals.repeats.update(totals.repeats)
            for direction, service in totals.moved:
                self._totals.moved[direction, self._service_label(service)] += totals.moved[direction, service]
            for service, kind in totals.errors:
                self._totals.errors[self._service_label(service), kind] += totals.errors[service, kind]

    def count_error(self, service: str, kind: str) -> None:
        """Count an error of a target or a poll: the service that is to blame, empty for none, and the type of the error."""
        with self._lock:
            self._totals.errors[self._service_label(service), kind] += 1

    def count_bytes(self, direction: str, service: str, size: int) -> None:
        """Count the bytes of a finished transfer, :data:`FETCHED` from or :data:`STORED` in a service."""
        with self._lock:
            self._totals.moved[direction, self._service_label(service)] += size

    def record_poll_start(self) -> None:
        """Note the beginning of a poll."""
        with self._lock:
            self._polls.begun, self._polls.next_due = time.time(), None

    def record_poll_success(self, result: Mapping[str, int], seconds: float, oldest_open: float | None) -> None:
        """Note the end of a poll that succeeded, with what it met."""
        with self._lock:
            earlier = self._polls
            self._polls = PollStatistics(
                earlier.succeeded + 1, earlier.failed, earlier.begun, time.time(), seconds, dict(result)
            )
            self._polls.oldest_open = oldest_open

    def record_poll_failure(self, error: str) -> None:
        """Note why a poll failed."""
        with self._lock:
            self._polls.failed += 1
            self._polls.error = error

    def schedule_next_poll(self, seconds: float) -> None:
        """Note that the next poll begins in so many seconds."""
        with self._lock:
            self._polls.next_due = time.time() + seconds

    def take_snapshot(self) -> ActivitySnapshot:
        """Return everything at this moment."""
        with self._lock:
            running = tuple(self._running.values())
            return ActivitySnapshot(time.time(), self._started, *deepcopy((running, self._polls, self._totals)))

    def _service_label(self, service: str) -> str:
        """Return the name under which a service is counted."""
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
    """Say which step of its target this thread begins."""
    if (current := _current.get()) is not None:
        current[0]._begin_step(current[1], name)


def count_step(name: str, seconds: float) -> None:
    """Count a step of a target that went well, and how long it took."""
    if (current := _current.get()) is not None:
        current[0]._count_step(name, seconds)


def count_repeat() -> None:
    """Count one more try in place of the step that its target is in."""
    if (current := _current.get()) is not None:
        current[0]._count_repeat(current[1])


def set_expected_amount(amount: int) -> None:
    """Say how much more is to be done in this step: bytes of a transfer, or microseconds of media."""
    if (current := _current.get()) is not None:
        current[0]._set_progress(current[1], 0, amount)


def add_progress(amount: int) -> None:
    """Say how much more of it is done."""
    if (current := _current.get()) is not None:
        current[0]._set_progress(current[1], amount, 0)


def count_transfer(direction: str, service: str, size: int) -> None:
    """Count the bytes of a finished transfer of a job."""
    if (current := _current.get()) is not None:
        current[0].count_bytes(direction, service, size)
