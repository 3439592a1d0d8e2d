"""What is known of targets that failed: how often, when they may be tried again, which are set aside.

Whether a target is tried again follows from the type of its error alone; what the operating system refuses counts as
transient, like disk space. RWS stays the truth: a ledger that is lost costs
only some attempts.
"""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from dataclasses import dataclass

from muxer.errors import MediaNotFound, Transient

PERMANENT_ATTEMPTS = 3
FIRST_DELAY_SECONDS = 15.0
LONGEST_DELAY_SECONDS = 3600.0
# So many failed targets are remembered; the oldest are forgotten first.
REMEMBERED = 100_000


@dataclass(frozen=True)
class Entry:
    """The failures of one target: all of them, and those that waiting does not mend. ``retry_at`` is on the caller's clock,
    None when the target is set aside."""

    attempts: int
    permanent: int
    retry_at: float | None
    reason: str


def delay(attempt: int) -> float:
    """Given the number of an attempt, from 1 on, return the seconds to wait after it fails, without jitter."""
    return min(FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 20), LONGEST_DELAY_SECONDS)


class Ledger:
    """The failures of this run. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def may_run(self, key: str, now: float) -> bool:
        """Whether a target may be tried at ``now``."""
        with self._lock:
            entry = self._entries.get(key)
        return entry is None or (entry.retry_at is not None and entry.retry_at <= now)

    def succeeded(self, key: str) -> None:
        """Forget the failures of a target."""
        with self._lock:
            self._entries.pop(key, None)

    def failed(self, key: str, error: Exception, now: float) -> Entry:
        """Note a failure and return what follows from it."""
        with self._lock:
            earlier = self._entries.pop(key, None)
            entry = self._entries[key] = _judge(error, earlier or Entry(0, 0, now, ""), now)
            if len(self._entries) > REMEMBERED:
                self._entries.popitem(last=False)
        return entry

    def is_known(self, key: str) -> bool:
        """Whether a target has failed before."""
        with self._lock:
            return key in self._entries


def _judge(error: Exception, earlier: Entry, now: float) -> Entry:
    attempts, permanent = earlier.attempts + 1, earlier.permanent
    if isinstance(error, MediaNotFound):
        return Entry(attempts, permanent, now, str(error))
    if isinstance(error, Transient | OSError | MemoryError):
        asked = error.retry_after if isinstance(error, Transient) else None
        wait = delay(attempts) if asked is None else min(asked, LONGEST_DELAY_SECONDS)
        return Entry(attempts, permanent, now + wait * random.uniform(1.0, 1.2), str(error))
    permanent += 1
    return Entry(attempts, permanent, None if permanent >= PERMANENT_ATTEMPTS else now, str(error))
