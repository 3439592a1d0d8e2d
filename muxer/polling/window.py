"""The query of a poll: the sliding window of time, or the migration's own query. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlencode

from muxer.config.query_string import encode_query, parameter_names
from muxer.gir.models import to_microseconds


def window_query(now: datetime, past: float, older_than: float, limit: int, extra: str) -> str:
    """Given the time, both ends of the window in minutes before it, the page size and further parameters as they are
    configured, return the query string, ready for a URL. Times are epoch milliseconds (gir-api, section 3)."""
    start, end = (to_microseconds(now - timedelta(minutes=minutes)) // 1000 for minutes in (past, older_than))
    query = urlencode({"startTime": start, "endTime": end, "limit": limit})
    return f"{query}&{encode_query(extra)}" if extra else query


def migration_query(query: str, limit: int) -> str:
    """Given the migration's query as it is configured and the page size, return the query string, ready for a URL."""
    encoded = encode_query(query)
    return encoded if "limit" in parameter_names(query) else f"{encoded}&limit={limit}"
