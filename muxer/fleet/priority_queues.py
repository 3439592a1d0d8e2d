"""The queues of a fleet, one for each age class, so that new calls precede old ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True)
class PriorityQueue:
    """The queue for calls younger than `age` seconds, open while all contain less than `share` of `max_queue`."""

    suffix: str
    age: float
    share: float


PRIORITY_QUEUES = (
    PriorityQueue("", HOUR, 1.0),
    PriorityQueue(".today", DAY, 0.75),
    PriorityQueue(".backlog", float("inf"), 0.5),
)
DEAD_LETTER_SUFFIX = ".XQ"
EVENTS_SUFFIX = ".events"
HEARTBEATS_SUFFIX = ".standings"


def queue_names(queue: str) -> tuple[str, ...]:
    """Return the names of the queues, the one for the newest calls first. `queue` is the option `[fleet] queue`."""
    return tuple(f"{queue}{priority.suffix}" for priority in PRIORITY_QUEUES)


def dead_letter_queue(queue: str) -> str:
    """Return the name of the queue of dead letters."""
    return f"{queue}{DEAD_LETTER_SUFFIX}"


def choose_queue(began: float | None, now: float) -> int:
    """Return the number of the queue for a call that `began` at an epoch time; None counts as old."""
    age = float("inf") if began is None else now - began
    return next((number for number, priority in enumerate(PRIORITY_QUEUES) if age < priority.age), len(PRIORITY_QUEUES) - 1)


def free_capacity(lane: int, depths: Sequence[int], max_queue: int) -> int:
    """Return the number of tasks that the queue `lane` still accepts. `depths` are the waiting tasks of all queues."""
    return max(0, max(1, int(PRIORITY_QUEUES[lane].share * max_queue)) - sum(depths))


def has_room_everywhere(depths: Sequence[int], max_queue: int) -> bool:
    """Whether every queue accepts more tasks."""
    return 4 * sum(depths) <= max_queue


def needs_work_soon(depths: Sequence[int], threads: int) -> bool:
    """Whether some of the `threads` of all workers will soon be idle."""
    return sum(depths) < 2 * threads
