"""The window of a poll: its passes, and the query of each; or the query of a migration. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlencode

from muxer.config.query_string import encode_query, parameter_names
from muxer.gir.models import to_microseconds

# The first pass goes back this far; each further one goes this much farther.
FIRST_PASS_MINUTES, PASS_FACTOR = 60.0, 4.0


def plan_passes(past: float, older_than: float) -> list[float]:
    """Return how far each pass goes back, in minutes: the newest calls first, then four times as far.

    Every pass ends at `older_than`: calls across a border between two passes would be missed otherwise (gir-api, section 3).
    """
    ends, reach = [], FIRST_PASS_MINUTES
    while reach < past - older_than:
        ends.append(older_than + reach)
        reach *= PASS_FACTOR
    return [*ends, past]


def window_query(now: datetime, past: float, older_than: float, limit: int, extra: str) -> str:
    """Return the query string of a pass, in epoch milliseconds; `past` and `older_than` are minutes before `now`."""
    start, end = (to_microseconds(now - timedelta(minutes=minutes)) // 1000 for minutes in (past, older_than))
    query = urlencode({"startTime": start, "endTime": end, "limit": limit})
    return f"{query}&{encode_query(extra)}" if extra else query


def migration_query(query: str, limit: int) -> str:
    """Return the query string of a migration, ready for a URL: `query` as configured, with the page size `limit`."""
    encoded = encode_query(query)
    return encoded if "limit" in parameter_names(query) else f"{encoded}&limit={limit}"
