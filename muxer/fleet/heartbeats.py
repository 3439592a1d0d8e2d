"""The workers of a fleet by their heartbeats: tasks in flight, rates and totals."""

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
# Limits for workers, for the names of steps, services and errors of each, and for counts. A worker counts each kind of
# error of up to 50 services apart.
MAX_WORKERS, MAX_NAMES, MAX_INTEGER = 1000, 5000, 1 << 62
_MALFORMED_ERRORS = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


@dataclass
class _KnownWorker:
    last_status: Mapping[str, Any]
    seen: float
    first_seen: float
    held: frozenset[str] = frozenset()
    totals: WorkTotals = field(default_factory=WorkTotals)
    finish_times: deque[float] = field(default_factory=deque)
    muxed: int = 0
    failed: int = 0


class WorkerRegistry:
    """All workers with a recent heartbeat, by name. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str, _KnownWorker] = {}

    def record_heartbeat(self, event: Event, now: float) -> WorkTotals:
        """Record a heartbeat; return the work since the previous one, nothing for the first one."""
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
        """Remove a worker that has stopped."""
        with self._lock:
            self._workers.pop(name, None)

    def record_finished(self, name: str, outcome: str, now: float) -> None:
        """Record that a worker has finished a target."""
        with self._lock:
            if (worker := self._workers.get(name)) is None:
                return
            worker.finish_times.append(now)
            worker.muxed += outcome == MUXED
            worker.failed += outcome == FAILED

    def held_targets(self, now: float) -> frozenset[str]:
        """Return the targets in flight at workers that are not silent."""
        with self._lock:
            live = (worker for worker in self._workers.values() if now - worker.seen <= SILENT_SECONDS)
            return frozenset[str]().union(*(worker.held for worker in live))

    def count_threads(self, now: float) -> int:
        """Return the number of threads of all workers that are not silent."""
        return sum(worker.threads for worker in self.worker_statuses(now) if not is_silent(worker, now))

    def worker_statuses(self, now: float) -> tuple[WorkerStatus, ...]:
        """Return the state of all workers, sorted by name."""
        with self._lock:
            statuses = [_worker_status(name, worker, now) for name, worker in sorted(self._workers.items())]
            return tuple(status for status in statuses if status is not None)


def _worker_status(name: str, worker: _KnownWorker, now: float) -> WorkerStatus | None:
    while worker.finish_times and worker.finish_times[0] < now - RATE_WINDOW_SECONDS:
        worker.finish_times.popleft()
    # A shorter time gives no meaningful rate.
    seconds = max(60.0, min(RATE_WINDOW_SECONDS, now - worker.first_seen))
    counts = {"muxed": worker.muxed, "failed": worker.failed, "rate": len(worker.finish_times) * 3600.0 / seconds}
    return worker_from_dict({**worker.last_status, "name": name, "seen": worker.seen, **counts})


def parse_totals(plain: Mapping[str, Any]) -> WorkTotals:
    """Return steps, bytes and errors from their JSON form. Raises one of :data:`MALFORMED_ERRORS`."""
    if any(len(plain[name]) > MAX_NAMES for name in ("steps", "moved", "errors")):
        raise ValueError("too many names")
    steps = {
        str(name): DurationHistogram([int(_parse_sum(count)) for count in step["counts"]], _parse_sum(step["seconds"]))
        for name, step in plain["steps"].items()
    }
    if any(len(step.counts) != len(DurationHistogram().counts) for step in steps.values()):
        raise ValueError("unexpected number of buckets")
    moved, errors = (_parse_counter(plain[name]) for name in ("moved", "errors"))
    return WorkTotals(steps=steps, moved=moved, errors=errors)


def _parse_counter(plain: Any) -> Counter[tuple[str, str]]:
    return Counter({(str(a), str(b)): int(_parse_sum(count)) for a, b, count in plain})


def _parse_sum(value: object) -> float:
    """Return a number unchanged. Raises ValueError when it is negative, too large or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"{str(value)[:80]} is not a valid sum")
    return value


def subtract_totals(totals: WorkTotals, earlier: WorkTotals) -> WorkTotals:
    """Return the work of a worker between two totals."""
    nothing = DurationHistogram()
    steps = {
        name: DurationHistogram(
            [now - then for now, then in zip(step.counts, earlier.steps.get(name, nothing).counts, strict=True)],
            step.seconds - earlier.steps.get(name, nothing).seconds,
        )
        for name, step in totals.steps.items()
    }
    return WorkTotals(steps=steps, moved=totals.moved - earlier.moved, errors=totals.errors - earlier.errors)
