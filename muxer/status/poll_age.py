"""Whether the last successful poll is too old: one rule for the health checks, the status page and `status`. Pure."""

from __future__ import annotations

# The last successful poll may be this number of intervals old; an interval counts as at least a minute.
MAX_INTERVALS = 3
MIN_INTERVAL_SECONDS = 60.0


def overdue_seconds(last: float, took: float, now: float, interval: float, *, is_busy: bool) -> float | None:
    """Return the age of the last successful poll if it is too old, else None; all in seconds.

    `took` is the duration to expect of the next one: that of the last poll, or of the last over the whole window if that was
    longer. While a poll waits for workers (`is_busy`), no age is too old.
    """
    age = now - last
    late = age - took > MAX_INTERVALS * max(interval, MIN_INTERVAL_SECONDS)
    return age if late and not is_busy else None
