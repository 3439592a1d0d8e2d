"""What follows from a failed attempt, in words that can be kept and sent. Pure: the type of the error decides, never its
text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from muxer.errors import GivenUp, MediaNotFound, Transient, code_of


class When(StrEnum):
    """When a target is tried again: at the next poll; after a growing time, without a bound on the attempts; after a short
    time, and only so often; not by itself."""

    SOON = "soon"
    LATER = "later"
    COUNTED = "counted"
    NEVER = "never"


@dataclass(frozen=True)
class Failure:
    """A failed attempt. ``retry_after``: the seconds that a service asked for, None when it did not; ``error``: the type of
    the error; ``reason``: its text; ``service``: the one to blame, empty for none."""

    when: When
    retry_after: float | None
    code: str
    error: str
    reason: str
    service: str = ""

    @property
    def told(self) -> str:
        """How logs and pages tell it, as :func:`muxer.errors.told` does."""
        return f"{self.code} {self.error}: {self.reason}"


def failure_of(error: Exception) -> Failure:
    """Given the error that has ended an attempt, return what follows from it."""
    retry_after = error.retry_after if isinstance(error, Transient) else None
    service = error.service if isinstance(error, Transient) else ""
    return Failure(_when(error), retry_after, str(code_of(error)), type(error).__name__, str(error), service)


def _when(error: Exception) -> When:
    if isinstance(error, GivenUp):
        return When.NEVER
    if isinstance(error, MediaNotFound):
        return When.SOON
    if isinstance(error, Transient | OSError | MemoryError):
        return When.LATER
    return When.COUNTED
