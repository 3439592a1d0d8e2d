"""The query of a pass over the window, or that of a migration. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlencode

from muxer.config.query_string import encode_query, parameter_names
from muxer.gir.models import to_microseconds


def window_query(now: datetime, past: float, older_than: float, limit: int, extra: str) -> str:
    """Return the query string of a pass, in epoch milliseconds; `past` and `older_than` are minutes before `now`."""
    start, end = (to_microseconds(now - timedelta(minutes=minutes)) // 1000 for minutes in (past, older_than))
    query = urlencode({"startTime": start, "endTime": end, "limit": limit})
    return f"{query}&{encode_query(extra)}" if extra else query


def migration_query(query: str, limit: int) -> str:
    """Return the query string of a migration, ready for a URL: `query` as configured, with the page size `limit`."""
    encoded = encode_query(query)
    return encoded if "limit" in parameter_names(query) else f"{encoded}&limit={limit}"
