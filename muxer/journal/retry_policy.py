"""The retry policy: when a target, a poll or a step is tried again, by the type of the error. Pure, but for the jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from muxer.errors import MediaIncomplete, MediaNotFound, OrderFailed, Transient, describe_error, error_code

MAX_PERMANENT_ATTEMPTS = 3
PERMANENT_DELAY_SECONDS = 5.0
FIRST_DELAY_SECONDS = 15.0
# Where requests fail at random, a longer delay does not help: the next attempt is as likely to succeed now as later.
FLAKY_DELAY_SECONDS = 5.0
MAX_DELAY_SECONDS = 3600.0
# A missing file is looked for at every poll for this time, then after a fraction of the time for which it is missing, as
# older calls are read.
EVERY_POLL_SECONDS, AGE_FRACTION = 3600.0, 0.1
MAX_POLL_DELAY_SECONDS = 300.0
# The delay before the second try of a step, the third, and so on. A step is tried once more than there are delays.
STEP_DELAYS = (0.2, 0.6, 2.0)
# A service that asks for a longer delay (`Retry-After`) gets it between two attempts at the recording, not within a step.
MAX_STEP_DELAY_SECONDS = 30.0


class RetryPolicy(StrEnum):
    """When a target is retried: at the next poll, after a time that grows with its age, after a growing delay, a few times
    after a short one, or never."""

    NEXT_POLL = "soon"
    BY_AGE = "aged"
    BACKOFF = "later"
    LIMITED = "counted"
    NEVER = "never"


@dataclass(frozen=True)
class Failure:
    """A failed attempt, with the type of its `error`, its text and the service that failed (empty: none)."""

    when: RetryPolicy
    retry_after: float | None
    code: str
    error: str
    reason: str
    service: str = ""

    @property
    def text(self) -> str:
        """The text for logs and pages, as of :func:`muxer.errors.format_error`."""
        return f"{self.code} {self.error}: {self.reason}"


@dataclass(frozen=True)
class FailureRecord:
    """The failures of a target, `permanent` ones too. `retry_at` is None when it is set aside.

    `missing_since` is the first failure of this process that is retried by its age, None without one.
    """

    attempts: int
    permanent: int
    retry_at: float | None
    code: str
    error: str
    reason: str
    missing_since: float | None = None


def classify_error(error: Exception) -> Failure:
    """Return the failure that `error`, which ended an attempt, stands for."""
    retry_after = error.retry_after if isinstance(error, Transient) else None
    service = error.service if isinstance(error, Transient) else ""
    code, reason = str(error_code(error)), describe_error(error)
    return Failure(_policy_for(error), retry_after, code, type(error).__name__, reason, service)


def _policy_for(error: Exception) -> RetryPolicy:
    if isinstance(error, OrderFailed):
        return RetryPolicy.NEVER
    if isinstance(error, MediaNotFound):
        return RetryPolicy.NEXT_POLL if isinstance(error, MediaIncomplete) else RetryPolicy.BY_AGE
    if isinstance(error, Transient | OSError | MemoryError):
        return RetryPolicy.BACKOFF
    return RetryPolicy.LIMITED


def backoff_delay(attempt: int) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1), without jitter."""
    return min(FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 20), MAX_DELAY_SECONDS)


def next_record(failure: Failure, reason: str, earlier: FailureRecord, now: float) -> FailureRecord:
    """Add a failure to the `earlier` ones of its target, and decide when it is retried."""
    attempts, permanent = earlier.attempts + 1, earlier.permanent
    last = (failure.code, failure.error, reason)
    if failure.when is RetryPolicy.NEXT_POLL:
        return FailureRecord(attempts, permanent, now, *last)
    if failure.when is RetryPolicy.BY_AGE:
        since = now if earlier.missing_since is None else earlier.missing_since
        age = now - since
        delay = min(age * AGE_FRACTION, MAX_DELAY_SECONDS) if age > EVERY_POLL_SECONDS else 0.0
        return FailureRecord(attempts, permanent, now + delay, *last, missing_since=since)
    if failure.when is RetryPolicy.BACKOFF:
        requested = failure.retry_after
        delay = backoff_delay(attempts) if requested is None else min(requested, MAX_DELAY_SECONDS)
        return FailureRecord(attempts, permanent, now + add_jitter(delay), *last)
    permanent += 1
    if failure.when is RetryPolicy.NEVER or permanent >= MAX_PERMANENT_ATTEMPTS:
        return FailureRecord(attempts, permanent, None, *last)
    return FailureRecord(attempts, permanent, now + add_jitter(PERMANENT_DELAY_SECONDS * 2.0 ** (permanent - 1)), *last)


def poll_delay(error: Exception, failures: int, interval: float) -> float:
    """Return the seconds until the next poll; a ``Retry-After`` precedes, up to :data:`MAX_POLL_DELAY_SECONDS`."""
    requested = error.retry_after if isinstance(error, Transient) else None
    delay = min(backoff_delay(failures) / 3.0, max(interval, backoff_delay(1) / 3.0)) if requested is None else requested
    return add_jitter(min(delay, MAX_POLL_DELAY_SECONDS))


def step_delay(attempt: int, retry_after: float | None) -> float | None:
    """Return the seconds until the next try of a step, after try number `attempt` (from 1); None when it has failed."""
    requested = retry_after or 0.0
    if attempt > len(STEP_DELAYS) or requested > MAX_STEP_DELAY_SECONDS:
        return None
    return add_jitter(max(requested, STEP_DELAYS[attempt - 1]))


def add_jitter(seconds: float) -> float:
    """Return `seconds`, lengthened by up to a fifth, so that retries of many processes do not coincide."""
    return seconds * random.uniform(1.0, 1.2)
