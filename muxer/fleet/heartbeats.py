"""The workers as they tell of themselves: what each has in hand, how much it does, and what all of them have done."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muxer.fleet.events import Event
from muxer.scheduling.attempts import FAILED, MUXED
from muxer.status.activity import DurationHistogram, WorkTotals
from muxer.status.fleet_status import FORGOTTEN_SECONDS, SILENT_SECONDS, WorkerStatus, is_silent, worker_from_dict

RATE_WINDOW_SECONDS = 600.0
# So many workers are known at most, with so many steps, services and errors of each; no count is larger than that.
MAX_WORKERS, MAX_NAMES, MAX_INTEGER = 1000, 200, 1 << 62
_MALFORMED_ERRORS = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


@dataclass
class _KnownWorker:
    """What is known of a worker: what it told last, and when; what it has in hand; when it finished targets; sums."""

    last_status: Mapping[str, Any]
    seen: float
    first_seen: float
    held: frozenset[str] = frozenset()
    totals: WorkTotals = field(default_factory=WorkTotals)
    finish_times: deque[float] = field(default_factory=deque)
    muxed: int = 0
    failed: int = 0


class WorkerRegistry:
    """All workers that were heard lately, by name. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str, _KnownWorker] = {}

    def record_heartbeat(self, event: Event, now: float) -> WorkTotals:
        """Given how a worker stands and the time, note it; return what it has done since it told so last: nothing the first
        time, because it may have told that to this poller's predecessor."""
        try:
            totals, held = parse_totals(event.details["totals"]), frozenset(map(str, event.details["held"]))
        except _MALFORMED_ERRORS:
            return WorkTotals()
        with self._lock:
            known = self._workers.get(event.sender)
            self._workers = {name: one for name, one in self._workers.items() if now - one.seen <= FORGOTTEN_SECONDS}
            if known is None and len(self._workers) >= MAX_WORKERS:
                return WorkTotals()
            worker = known or _KnownWorker(event.details, now, now, totals=totals)
            since = subtract_totals(totals, worker.totals)
            worker.last_status, worker.seen, worker.held, worker.totals = event.details, now, held, totals
            self._workers[event.sender] = worker
        return since

    def remove_worker(self, name: str) -> None:
        """A worker has ended as it should."""
        with self._lock:
            self._workers.pop(name, None)

    def record_finished(self, name: str, outcome: str, now: float) -> None:
        """A worker has finished a target."""
        with self._lock:
            if (worker := self._workers.get(name)) is None:
                return
            worker.finish_times.append(now)
            worker.muxed += outcome == MUXED
            worker.failed += outcome == FAILED

    def held_targets(self, now: float) -> frozenset[str]:
        """Return the targets that living workers have in hand."""
        with self._lock:
            living = (one for one in self._workers.values() if now - one.seen <= SILENT_SECONDS)
            return frozenset[str]().union(*(one.held for one in living))

    def count_threads(self, now: float) -> int:
        """Return how many targets all living workers may work on at the same time."""
        return sum(one.threads for one in self.worker_statuses(now) if not is_silent(one, now))

    def worker_statuses(self, now: float) -> tuple[WorkerStatus, ...]:
        """Return how the workers stand, by name."""
        with self._lock:
            views = [_worker_status(name, one, now) for name, one in sorted(self._workers.items())]
            return tuple(view for view in views if view is not None)


def _worker_status(name: str, worker: _KnownWorker, now: float) -> WorkerStatus | None:
    while worker.finish_times and worker.finish_times[0] < now - RATE_WINDOW_SECONDS:
        worker.finish_times.popleft()
    # Of one that was heard of just now, no rate can be told yet.
    seconds = max(60.0, min(RATE_WINDOW_SECONDS, now - worker.first_seen))
    counts = {"muxed": worker.muxed, "failed": worker.failed, "rate": len(worker.finish_times) * 3600.0 / seconds}
    return worker_from_dict({**worker.last_status, "name": name, "seen": worker.seen, **counts})


def parse_totals(plain: Mapping[str, Any]) -> WorkTotals:
    """Given totals as a state file holds them, return their steps, bytes and errors. Raise one of ``AttributeError``,
    ``KeyError``, ``OverflowError``, ``TypeError`` and ``ValueError`` when they are malformed."""
    if any(len(plain[name]) > MAX_NAMES for name in ("steps", "moved", "errors")):
        raise ValueError("too many names")
    steps = {
        str(name): DurationHistogram([int(_parse_sum(count)) for count in one["counts"]], _parse_sum(one["seconds"]))
        for name, one in plain["steps"].items()
    }
    if any(len(one.counts) != len(DurationHistogram().counts) for one in steps.values()):
        raise ValueError("durations of other classes")
    moved, errors = (_parse_counter(plain[name]) for name in ("moved", "errors"))
    return WorkTotals(steps=steps, moved=moved, errors=errors)


def _parse_counter(plain: Any) -> Counter[tuple[str, str]]:
    return Counter({(str(a), str(b)): int(_parse_sum(count)) for a, b, count in plain})


def _parse_sum(value: object) -> float:
    """Return a sum as it is. Raise ``ValueError`` for what is none, or too large to be added up."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"{str(value)[:80]} is no sum")
    return value


def subtract_totals(totals: WorkTotals, earlier: WorkTotals) -> WorkTotals:
    """Given two totals of one worker, return what was done between them."""
    nothing = DurationHistogram()
    steps = {
        name: DurationHistogram(
            [now - then for now, then in zip(one.counts, earlier.steps.get(name, nothing).counts, strict=True)],
            one.seconds - earlier.steps.get(name, nothing).seconds,
        )
        for name, one in totals.steps.items()
    }
    return WorkTotals(steps=steps, moved=totals.moved - earlier.moved, errors=totals.errors - earlier.errors)
