"""Times as RWS writes and reads them."""

from datetime import UTC, datetime


def wire_time(moment: datetime) -> str:
    """Return a moment as ``2015-09-10T16:58:22.000+0000`` [gir-api 3]."""
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}+0000"


def epoch_ms(text: str) -> int:
    """Return a time in any ISO form with Z or an offset as epoch milliseconds. Raise ValueError if it is none."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
