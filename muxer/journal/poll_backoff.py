"""How long the muxer waits after a poll that failed. Pure but for its jitter."""

from __future__ import annotations

import random

from muxer.errors import Transient
from muxer.journal.retry_policy import backoff_delay

MAX_BACKOFF_SECONDS = 300.0


def poll_delay(error: Exception, failures: int, interval: float) -> float:
    """Given why a poll failed, how many have failed in a row and the seconds from one poll to the next, return the seconds
    to wait before the next, with jitter: more and more, but no longer than between two polls that succeed.

    What the service asks for with ``Retry-After`` is honoured, up to the longest back-off.
    """
    asked = error.retry_after if isinstance(error, Transient) else None
    wait = min(backoff_delay(failures) / 3.0, max(interval, backoff_delay(1) / 3.0)) if asked is None else asked
    return min(wait, MAX_BACKOFF_SECONDS) * random.uniform(1.0, 1.2)
