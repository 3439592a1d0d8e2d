"""Times in the format of RWS."""

from datetime import UTC, datetime


def wire_time(time: datetime) -> str:
    """Format a time as `2015-09-10T16:58:22.000+0000` [gir-api 3]."""
    utc = time.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}+0000"


def epoch_ms(text: str) -> int:
    """Return an ISO time with Z or an offset as epoch milliseconds. Raises ValueError if it is invalid."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
