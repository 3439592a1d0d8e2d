"""Whether the last successful poll is too old: one rule for the health checks, the status page and `status`. Pure."""

from __future__ import annotations

from muxer.status.activity import PollStatistics
from muxer.status.heartbeat import Heartbeat

# The last successful poll may be this number of intervals old; an interval counts as at least a minute.
MAX_INTERVALS = 3
MIN_INTERVAL_SECONDS = 60.0


def overdue_seconds(last: float, took: float, now: float, interval: float, *, is_busy: bool) -> float | None:
    """Return the age of the last successful poll if it is too old, else None; all in seconds.

    `took` is the duration to expect of the next one (:func:`expected_seconds`). While a poll waits for workers (`is_busy`),
    no age is too old.
    """
    age = now - last
    late = age - took > MAX_INTERVALS * max(interval, MIN_INTERVAL_SECONDS)
    return age if late and not is_busy else None


def poll_progress(polls: PollStatistics, heartbeat: Heartbeat) -> float:
    """Return for how many seconds the running poll has made progress; 0 between polls."""
    if polls.begun is None or polls.next_due is not None or polls.begun <= (polls.last_success or 0.0):
        return 0.0
    return heartbeat.progress_since(polls.begun)


def expected_seconds(last: float, whole: float, progress: float) -> float:
    """Return how long the next poll to succeed may take: as long as the last one, the last one over the whole window, or
    as long as the running one makes progress."""
    return max(last, whole, progress)
