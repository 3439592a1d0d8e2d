"""The hours of the day in which something is allowed. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

MINUTES_PER_DAY = 24 * 60
_HOURS = re.compile(r"([01]?\d|2[0-4])(?::([0-5]\d))?\s*-\s*([01]?\d|2[0-4])(?::([0-5]\d))?")


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
