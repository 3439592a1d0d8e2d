"""A clock that jumps from event to event."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

Action = Callable[..., None]


class EventLoop:
    """Scheduled actions in the order of their time; actions of the same time run in the order of scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self._coming: list[tuple[float, int, Action, tuple[Any, ...]]] = []
        self._number = count()

    def schedule_action(self, time: float, action: Action, *arguments: Any) -> None:
        """Schedule an action at `time`, which is not in the past."""
        heapq.heappush(self._coming, (time, next(self._number), action, arguments))

    def run(self) -> None:
        """Run all actions until none is scheduled."""
        coming, pop = self._coming, heapq.heappop
        while coming:
            self.now, _, action, arguments = pop(coming)
            action(*arguments)
