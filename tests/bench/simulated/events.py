"""A clock that jumps from event to event."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

Action = Callable[..., None]


class EventLoop:
    """What will happen, in the order of time, and of their coming in for what happens at the same moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self._coming: list[tuple[float, int, Action, tuple[Any, ...]]] = []
        self._number = count()

    def schedule_action(self, time: float, action: Action, *arguments: Any) -> None:
        """Let an action happen at a moment, which is not in the past."""
        heapq.heappush(self._coming, (time, next(self._number), action, arguments))

    def run(self) -> None:
        """Let everything happen, until nothing more will."""
        coming, pop = self._coming, heapq.heappop
        while coming:
            self.now, _, action, arguments = pop(coming)
            action(*arguments)
