"""Reads times in the forms of ISO 8601. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from dateutil.parser import isoparse

# Times outside of these years are invalid (our decision), so that calculations with times cannot overflow.
_FIRST_YEAR, _LAST_YEAR = 1970, 2200


def parse_time(value: object) -> datetime | None:
    """Parse a time, UTC without an offset; return it in UTC. None for others, before 1970 or after 2200."""
    if not isinstance(value, str):
        return None
    try:
        time = isoparse(value.strip())
        time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if _FIRST_YEAR <= time.year <= _LAST_YEAR else None
