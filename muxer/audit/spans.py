"""The span of time of an audit, divided into slices that are read one after the other. Pure.

A query finds calls that began and ended in its window. So each query goes on after the end of its slice for as long as a
call may last, and only the calls that began in the slice are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from muxer.gir.models import to_microseconds
from muxer.gir.sweep import MAX_OVERLAP_MS
from muxer.system.iso_time import parse_time

SLICE_MS = 24 * 3600 * 1000
# Epoch seconds in place of milliseconds would be a time in January 1970.
_MIN_TIME_MS = 10**11


@dataclass(frozen=True)
class Span:
    """Times from `start` to before `end`, in epoch milliseconds."""

    start: int
    end: int

    def divide(self) -> Iterator[Span]:
        """Yield the slices, the oldest first."""
        for start in range(self.start, self.end, SLICE_MS):
            yield Span(start, min(start + SLICE_MS, self.end))

    @property
    def query(self) -> str:
        """The times of the query that finds every call that began in this slice."""
        return f"startTime={self.start}&endTime={self.end + MAX_OVERLAP_MS}"

    def contains(self, time_ms: int | None) -> bool:
        """Whether a call that began at `time_ms` belongs to it; one without a time (None) belongs to every slice."""
        return time_ms is None or self.start <= time_ms < self.end


def parse_audit_time(text: str) -> int:
    """Return the epoch milliseconds of an ISO time (UTC without an offset) or of epoch milliseconds. Raises ValueError."""
    cleaned = text.strip()
    if cleaned.isascii() and cleaned.isdigit() and len(cleaned) != len("YYYYMMDD"):
        number = int(cleaned)
        if number < _MIN_TIME_MS:
            raise ValueError(f"{cleaned} is no time in epoch milliseconds (13 digits); are these seconds?")
        if parse_time_ms(number) is None:
            raise ValueError(f"{cleaned} is no usable time in epoch milliseconds (13 digits)")
        return number
    time = parse_time(cleaned)
    if time is None:
        raise ValueError(f"{cleaned!r} is neither a time such as 2026-03-01T00:00:00Z nor epoch milliseconds")
    return to_microseconds(time) // 1000


def parse_time_ms(number: int) -> int | None:
    """Return `number` when it is a time in epoch milliseconds before the year 2200, else None."""
    return number if number < 7_258_118_400_000 else None
