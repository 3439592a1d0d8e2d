"""Repeats a failed step, so that a failed request does not cost what was fetched and muxed before it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from muxer.errors import ServiceUnavailable, Stopped, format_error
from muxer.journal.retry_policy import step_delay
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.status import activity

log = logging.getLogger(__name__)

T = TypeVar("T")


class Repeat(Protocol):
    """Calls `do`, which is safe to repeat, once or several times; `what` names the step in the log."""

    def __call__(self, what: str, do: Callable[[], T], /) -> T: ...


def call_once(_what: str, do: Callable[[], T]) -> T:
    """Call `do` once."""
    return do()


class Repeater:
    """A :class:`Repeat` that tries up to four times while a service fails. Safe to use from any thread."""

    def __init__(self, circuit_breaker: CircuitBreaker, stop: threading.Event) -> None:
        self._circuit_breaker = circuit_breaker
        self._stop = stop

    def __call__(self, what: str, do: Callable[[], T]) -> T:
        """Call `do` until it succeeds; only ServiceUnavailable is retried. Raises the last error, or Stopped."""
        number, failed = 1, ""
        while True:
            try:
                with self._circuit_breaker.ignore_quick_failures():
                    result = do()
                if failed:
                    self._circuit_breaker.record_recovery(failed)
                return result
            except ServiceUnavailable as error:
                delay = self._next_delay(error, number)
                if delay is None:
                    self._count_failure(error)
                    raise
                fields = {"step": what, "try": number, "reason": format_error(error)}
                log.info("%s failed; retrying in %.1f s", what, delay, extra={"fields": fields})
                activity.count_repeat()
                if self._stop.wait(delay):
                    raise Stopped(f"stopped before the next try: {what}") from error
                failed = error.service
            number += 1

    def _next_delay(self, error: ServiceUnavailable, number: int) -> float | None:
        """Return the seconds until the next try, after try `number` (from 1). Returns None when the step has failed."""
        # An error without a service summarizes failures that were retried already.
        if error.is_given_up or not error.service or self._circuit_breaker.is_open(error.service):
            return None
        return step_delay(number, error.retry_after)

    def _count_failure(self, error: ServiceUnavailable) -> None:
        """Count the failure, and keep the steps around this one from retrying it again."""
        if not error.is_given_up:
            error.is_given_up = True
            self._circuit_breaker.count_failure(error)
