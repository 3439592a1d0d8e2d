"""The queues of a fleet, and which of them an order goes into. Pure.

A quorum queue is first in, first out. So that new calls go before old ones, there is one for each class of age (a lane), and
a worker looks into them in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True)
class PriorityQueue:
    """One queue: the end of its name; calls that began less than ``age`` seconds ago go into it; while all queues together
    hold more than this ``share`` of ``max_queue``, nothing does, so that newer calls find room."""

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
    """Given the option ``queue``, return the names of the lanes, that for the newest calls first."""
    return tuple(f"{queue}{lane.suffix}" for lane in PRIORITY_QUEUES)


def dead_letter_queue(queue: str) -> str:
    """Given the option ``queue``, return the name of the queue of dead letters."""
    return f"{queue}{DEAD_LETTER_SUFFIX}"


def choose_queue(began: float | None, now: float) -> int:
    """Given when a call began and the time (epoch seconds), return the number of its lane; without a beginning it is old."""
    age = float("inf") if began is None else now - began
    return next((number for number, lane in enumerate(PRIORITY_QUEUES) if age < lane.age), len(PRIORITY_QUEUES) - 1)


def free_capacity(lane: int, depths: Sequence[int], max_queue: int) -> int:
    """Given the number of a lane and how many messages wait in each, return how many more may go into it."""
    return max(0, max(1, int(PRIORITY_QUEUES[lane].share * max_queue)) - sum(depths))


def has_room_everywhere(depths: Sequence[int], max_queue: int) -> bool:
    """Given how many messages wait in each lane, return whether more should come: there is room in every lane."""
    return 4 * sum(depths) <= max_queue


def needs_work_soon(depths: Sequence[int], threads: int) -> bool:
    """Given how many messages wait in each lane and how many threads all workers have, return whether some of these will
    soon have no work."""
    return sum(depths) < 2 * threads
