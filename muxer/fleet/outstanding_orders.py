"""The outstanding tasks of a poller: each target from its task to its outcome. Times are epoch seconds."""

from __future__ import annotations

import threading
from collections.abc import Container
from dataclasses import dataclass, replace

from muxer.journal.journal import TargetKey
from muxer.status.fleet_status import SILENT_SECONDS

# A task is lost when all queues were empty for this time and no live worker has it.
SETTLE_SECONDS = 60.0
# Checks farther apart do not count as continuous: RabbitMQ was unavailable in between.
MAX_GAP_SECONDS = 10.0
# Where queues are never empty, a lost task is queued again after this time. That is safe: a worker reads RWS first.
MAX_OUTSTANDING_SECONDS = 12 * 3600.0


@dataclass(frozen=True)
class OutstandingOrder:
    """An outstanding target. `contested`: a second worker started it while the first was live."""

    key: TargetKey
    message: str
    queued: float
    begun: float | None = None
    dropped: float | None = None
    worker: str = ""
    contested: bool = False

    def is_worked_on(self, now: float, at_workers: Container[str]) -> bool:
        """Whether a worker is processing it: one of `at_workers`, or just started."""
        return self.key.name in at_workers or (self.begun is not None and abs(now - self.begun) <= SILENT_SECONDS)


class IdleTimer:
    """Since when all queues have been empty in each check; None when they are not, or a task was sent since."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._last = 0.0

    def record_check(self, is_empty: bool, now: float) -> None:
        """Record a check."""
        is_continuous = self.since is not None and abs(now - self._last) <= MAX_GAP_SECONDS
        self.since, self._last = (self.since if is_continuous else now) if is_empty else None, now


class OutstandingOrders:
    """The outstanding targets by name. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, OutstandingOrder] = {}

    def __contains__(self, file: object) -> bool:
        with self._lock:
            return file in self._held

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    def get(self, file: str) -> OutstandingOrder | None:
        """Return an outstanding target, None when it is not outstanding."""
        with self._lock:
            return self._held.get(file)

    def put(self, held: OutstandingOrder) -> None:
        """Add or replace an outstanding target."""
        with self._lock:
            self._held[held.key.name] = held

    def record_start(
        self, key: TargetKey, now: float, worker: str = "", at_workers: Container[str] = ()
    ) -> OutstandingOrder:
        """Record that `worker` has started a target of any poller. `at_workers` are the targets of live workers."""
        with self._lock:
            known = self._held.get(key.name) or OutstandingOrder(key, "", now)
            agent = key.agent or known.key.agent
            contested = known.contested or (known.worker not in ("", worker) and key.name in at_workers)
            found = replace(known, key=replace(known.key, agent=agent), begun=now, worker=worker, contested=contested)
            self._held[key.name] = found
        return found

    def remove_order(self, file: str) -> OutstandingOrder | None:
        """Remove a target and return it; None when it was not outstanding."""
        with self._lock:
            return self._held.pop(file, None)

    @property
    def all_orders(self) -> tuple[OutstandingOrder, ...]:
        """All outstanding targets."""
        with self._lock:
            return tuple(self._held.values())

    def find_lost(self, now: float, empty_since: float | None, at_workers: Container[str]) -> list[OutstandingOrder]:
        """Return targets whose task is lost. `empty_since` is since when all queues are empty, None when they are not."""
        has_settled = empty_since is not None and abs(now - empty_since) >= SETTLE_SECONDS
        return [held for held in self.all_orders if held.key.name not in at_workers and _is_lost(held, now, has_settled)]


def _is_lost(held: OutstandingOrder, now: float, has_settled: bool) -> bool:
    if held.dropped is not None and abs(now - held.dropped) > SILENT_SECONDS:
        return True
    # Absolute, so that a clock that was set back does not delay it.
    age = abs(now - max(held.queued, held.begun or 0.0))
    return age >= MAX_OUTSTANDING_SECONDS or (has_settled and age >= SETTLE_SECONDS)
