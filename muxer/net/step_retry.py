"""Repeats a step in place, so that a failed request costs one request, and not what was fetched and muxed before it."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from muxer.errors import ServiceUnavailable, Stopped, format_error
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.status import activity

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds before the second try, the third, and so on; each plus up to a fifth. There is one try more than delays.
RETRY_DELAYS = (0.2, 0.6, 2.0)
# A service that asks for a longer delay than this gets it between two attempts at the recording (`Retry-After`).
MAX_RETRY_AFTER_SECONDS = 30.0


class Repeat(Protocol):
    """Calls `do`, which is safe to repeat, and returns what it returns; `what` names it in the log."""

    def __call__(self, what: str, do: Callable[[], T], /) -> T:
        """Call `do` once or several times."""


def call_once(_what: str, do: Callable[[], T]) -> T:
    """Call `do` once."""
    return do()


class Repeater:
    """A :class:`Repeat` that tries up to four times while a service fails. Safe to use from any thread."""

    def __init__(self, outages: CircuitBreaker, stop: threading.Event) -> None:
        """Create it; a service that is out in `outages` is not tried again, and `stop` ends every delay."""
        self._outages = outages
        self._stop = stop

    def __call__(self, what: str, do: Callable[[], T]) -> T:
        """Call `do` until it succeeds. Only :class:`ServiceUnavailable` is tried again: everything else would fail again, or
        has its own time.

        Raises the last error, and :class:`Stopped` when the process stops.
        """
        number, failed = 1, ""
        while True:
            try:
                with self._outages.ignore_quick_failures():
                    result = do()
                if failed:
                    self._outages.record_recovery(failed)
                return result
            except ServiceUnavailable as error:
                delay = self._next_delay(error, number)
                if delay is None:
                    self._count_failure(error)
                    raise
                fields = {"step": what, "try": number, "reason": format_error(error)}
                log.info("%s failed, repeated in %.1f s", what, delay, extra={"fields": fields})
                activity.count_repeat()
                if self._stop.wait(delay):
                    raise Stopped(f"stopped before another try: {what}") from error
                failed = error.service
            number += 1

    def _next_delay(self, error: ServiceUnavailable, number: int) -> float | None:
        """Return the seconds until the next try, after the try with this `number`, from 1 on. Returns None when there is to
        be none."""
        # An error that no service is to blame for sums up what was tried often enough.
        if error.is_given_up or not error.service or number > len(RETRY_DELAYS) or self._outages.is_open(error.service):
            return None
        asked = error.retry_after or 0.0
        return None if asked > MAX_RETRY_AFTER_SECONDS else max(asked, RETRY_DELAYS[number - 1]) * random.uniform(1.0, 1.2)

    def _count_failure(self, error: ServiceUnavailable) -> None:
        """Count the failure, and keep the steps around this one from repeating it once more."""
        if not error.is_given_up:
            error.is_given_up = True
            self._outages.count_failure(error)
