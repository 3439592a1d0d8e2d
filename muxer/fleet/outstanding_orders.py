"""What a poller knows of the orders that are out: each target from its order to its outcome. A target that is out is not
ordered again; one whose order has vanished is. Pure but for its lock; times are epoch seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Container
from dataclasses import dataclass, replace

from muxer.journal.journal import TargetKey
from muxer.status.fleet_status import SILENT_SECONDS

# An order counts as vanished when all lanes were seen empty for so long, and no living worker has it.
SETTLE_SECONDS = 60.0
# Looks that are farther apart than this do not tell what was in between: RabbitMQ was out, or took nothing.
MAX_GAP_SECONDS = 10.0
# In lanes that are never empty an order may vanish unseen; after so long it is given again, which doubles nothing: a worker
# asks RWS first.
MAX_OUTSTANDING_SECONDS = 12 * 3600.0


@dataclass(frozen=True)
class OutstandingOrder:
    """A target that is out: the id of its message, when it was put into a lane, when which worker began it, and when one
    dropped this order because of another for the same target. ``contested``: another worker told that it began it, while
    this one lived and had it."""

    key: TargetKey
    message: str
    queued: float
    begun: float | None = None
    dropped: float | None = None
    worker: str = ""
    contested: bool = False

    def is_worked_on(self, now: float, at_workers: Container[str]) -> bool:
        """Given the time and what living workers have, return whether a worker is at it. One that has begun it just now may
        not have told so yet; one that has ended since has left it in its lane."""
        return self.key.name in at_workers or (self.begun is not None and abs(now - self.begun) <= SILENT_SECONDS)


class IdleTimer:
    """Since when all lanes have been seen empty, look after look; None when they are not, or an order was sent since."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._last = 0.0

    def record_check(self, is_empty: bool, now: float) -> None:
        """Note a look."""
        goes_on = self.since is not None and abs(now - self._last) <= MAX_GAP_SECONDS
        self.since, self._last = (self.since if goes_on else now) if is_empty else None, now


class OutstandingOrders:
    """The targets that are out, by name. Safe to use from any thread."""

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
        """Return what is known of a target, None when it is not out."""
        with self._lock:
            return self._held.get(file)

    def put(self, held: OutstandingOrder) -> None:
        """Note that a target is out."""
        with self._lock:
            self._held[held.key.name] = held

    def record_start(
        self, key: TargetKey, now: float, worker: str = "", at_workers: Container[str] = ()
    ) -> OutstandingOrder:
        """Note that a `worker` has begun a target, ours or that of another poller; return what is known of it.

        `at_workers` holds the targets that living workers have.
        """
        with self._lock:
            known = self._held.get(key.name) or OutstandingOrder(key, "", now)
            agent = key.agent or known.key.agent
            contested = known.contested or (known.worker not in ("", worker) and key.name in at_workers)
            found = replace(known, key=replace(known.key, agent=agent), begun=now, worker=worker, contested=contested)
            self._held[key.name] = found
        return found

    def remove_order(self, file: str) -> OutstandingOrder | None:
        """Note that a target is not out any more; return what was known of it."""
        with self._lock:
            return self._held.pop(file, None)

    @property
    def all_orders(self) -> tuple[OutstandingOrder, ...]:
        """Everything that is out."""
        with self._lock:
            return tuple(self._held.values())

    def find_lost(self, now: float, empty_since: float | None, at_workers: Container[str]) -> list[OutstandingOrder]:
        """Given the time, since when all lanes have been empty (None = they are not) and what living workers have, return
        what is out no more, although nobody has told its end."""
        has_settled = empty_since is not None and abs(now - empty_since) >= SETTLE_SECONDS
        return [one for one in self.all_orders if one.key.name not in at_workers and _has_vanished(one, now, has_settled)]


def _has_vanished(held: OutstandingOrder, now: float, has_settled: bool) -> bool:
    if held.dropped is not None and abs(now - held.dropped) > SILENT_SECONDS:
        return True
    # A clock that was set back must not keep an order waiting.
    age = abs(now - max(held.queued, held.begun or 0.0))
    return age >= MAX_OUTSTANDING_SECONDS or (has_settled and age >= SETTLE_SECONDS)
