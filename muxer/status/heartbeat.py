"""Signs of life: when the main loop last ran, and when the thread that polls last got on. A request that hangs, and a lock
that is never given back, show in them.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterator
from contextlib import contextmanager

_current: contextvars.ContextVar[Heartbeat | None] = contextvars.ContextVar("pulse", default=None)


class Heartbeat:
    """When the two threads that must never stand still last got on. Times are of ``time.monotonic``."""

    def __init__(self) -> None:
        self.ticked = self.polled = time.monotonic()
        # Whether the thread that polls waits, as it may for any time: for the next poll, or for workers.
        self.waits = False
        # Whether it waits for workers, because there is more to do than they can.
        self.is_busy = False

    def record_tick(self) -> None:
        """The main loop runs."""
        self.ticked = time.monotonic()

    def bind_thread(self) -> None:
        """Let :func:`beat` in the calling thread, the one that polls, be counted here."""
        _current.set(self)

    @contextmanager
    def pause_while_waiting(self, for_workers: bool = False) -> Iterator[None]:
        """Within this block the thread that polls waits, which is no sign of trouble."""
        self.waits, self.is_busy = True, for_workers
        try:
            yield
        finally:
            self.polled, self.waits, self.is_busy = time.monotonic(), False, False


def beat() -> None:
    """Say that this thread gets on, if it is the one that polls."""
    if (pulse := _current.get()) is not None:
        pulse.polled = time.monotonic()
