"""Heartbeats of the main loop and of the poll thread. They reveal a request that hangs and a lock that is never released."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterator
from contextlib import contextmanager

_current: contextvars.ContextVar[Heartbeat | None] = contextvars.ContextVar("heartbeat", default=None)


class Heartbeat:
    """The last progress of the main loop and of the poll thread, by ``time.monotonic``."""

    def __init__(self) -> None:
        self.ticked = self.polled = time.monotonic()
        # Whether the poll thread waits, for the next poll or for workers: no limit applies.
        self.waits = False
        # Whether it waits for workers, because all are busy.
        self.is_busy = False

    def record_tick(self) -> None:
        """Record that the main loop runs."""
        self.ticked = time.monotonic()

    def bind_thread(self) -> None:
        """Make :func:`beat` in the calling thread count for this object."""
        _current.set(self)

    def progress_since(self, begun: float) -> float:
        """Return the time from `begun` (epoch seconds) to the last progress of the poll thread; waiting is progress."""
        silence = 0.0 if self.waits else time.monotonic() - self.polled
        return max(0.0, time.time() - silence - begun)

    @contextmanager
    def pause_while_waiting(self, for_workers: bool = False) -> Iterator[None]:
        """Within this block the poll thread waits, so that no limit applies."""
        self.waits, self.is_busy = True, for_workers
        try:
            yield
        finally:
            self.polled, self.waits, self.is_busy = time.monotonic(), False, False


def beat() -> None:
    """Record progress if the calling thread is the poll thread."""
    if (heartbeat := _current.get()) is not None:
        heartbeat.polled = time.monotonic()
