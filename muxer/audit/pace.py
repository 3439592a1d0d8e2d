"""How fast an audit may work: requests a second, and the hours of the day in which it may send them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from muxer.errors import Stopped
from muxer.system.allowed_hours import AllowedHours

DEFAULT_RATE = 20.0
HOURS_CHECK_SECONDS = 30.0


class Pace:
    """Lets requests pass one after another. Safe to use from any thread."""

    def __init__(
        self,
        rate: float,
        hours: AllowedHours | None,
        stop: threading.Event,
        report_pause: Callable[[int], None] = lambda minutes: None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`rate` is requests a second; `report_pause` gets the minutes for which the audit pauses."""
        self._interval, self._hours, self._stop = 1 / rate, hours, stop
        self._report_pause, self._now = report_pause, now
        self._lock = threading.Lock()
        self._next = 0.0

    def await_turn(self) -> None:
        """Wait until the next request may be sent. Raises Stopped."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._wait(turn - now)
            if self._await_hours():
                turn = time.monotonic()
            self._next = turn + self._interval

    def _await_hours(self) -> bool:
        """Wait for the allowed hours. Returns whether that was necessary."""
        reported = False
        while self._hours is not None and (minutes := self._hours.minutes_until(self._now())):
            if not reported:
                self._report_pause(minutes)
                reported = True
            self._wait(HOURS_CHECK_SECONDS)
        return reported

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped("the audit was stopped")
