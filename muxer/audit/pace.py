"""How fast an audit may work: requests a second, and the hours of the day in which it may send them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from muxer.errors import Stopped

DEFAULT_RATE = 20.0
_HOURS = re.compile(r"([01]?\d|2[0-4])(?::([0-5]\d))?\s*-\s*([01]?\d|2[0-4])(?::([0-5]\d))?")
MINUTES_PER_DAY = 24 * 60


@dataclass(frozen=True)
class AllowedHours:
    """The minutes of the day, by the clock of this machine, from `begin` to before `end`; the span may include midnight."""

    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> AllowedHours:
        """Parse a span such as ``20-6`` or ``20:30-06:00``. Raises ValueError."""
        found = _HOURS.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is no span of hours such as 20-6 or 20:30-06:00")
        begin, end = (int(found[n]) * 60 + int(found[n + 1] or 0) for n in (1, 3))
        if max(begin, end) > MINUTES_PER_DAY or begin % MINUTES_PER_DAY == end % MINUTES_PER_DAY:
            raise ValueError(f"{text!r} is no span of hours within a day")
        return cls(begin % MINUTES_PER_DAY, end % MINUTES_PER_DAY)

    def minutes_until(self, now: datetime) -> int:
        """Return how long it takes until the span begins, 0 within it."""
        minute = now.hour * 60 + now.minute
        length, passed = (self.end - self.begin) % MINUTES_PER_DAY, (minute - self.begin) % MINUTES_PER_DAY
        return 0 if passed < length else MINUTES_PER_DAY - passed


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
            self._await_hours()
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if self._stop.wait(max(0.0, turn - now)):
            raise Stopped("the audit was stopped")

    def _await_hours(self) -> None:
        reported = False
        while self._hours is not None and (minutes := self._hours.minutes_until(self._now())):
            if not reported:
                self._report_pause(minutes)
                reported = True
            if self._stop.wait(30.0):
                raise Stopped("the audit was stopped")
