"""When the last poll that succeeded is too long ago: one rule for the health, the status page and ``status``. Pure."""

from __future__ import annotations

# The last poll that succeeded may be so many intervals old, and no interval counts less than a minute.
MAX_INTERVALS = 3
MIN_INTERVAL_SECONDS = 60.0


def overdue_seconds(last: float, took: float, now: float, interval: float, *, is_busy: bool) -> float | None:
    """Given when the last poll ended that succeeded (the start, when none did), how long it took, the time, and the seconds
    from one poll to the next, return how long ago that was if it is too long; else None. ``is_busy``: a poll waits for
    workers. It has more to do than they can, which is no fault."""
    age = now - last
    late = age - took > MAX_INTERVALS * max(interval, MIN_INTERVAL_SECONDS)
    return age if late and not is_busy else None
