"""How many call recordings to ask for on a page: fewer when RWS refuses a page, or returns it too late. Pure.

What RWS has accepted instead holds for the rest of the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from muxer.errors import MuxerError, RequestRejected

DEFAULT_LIMIT = 100
# Elasticsearch refuses more.
MAX_LIMIT = 10_000
_BAD_REQUEST = 400


@dataclass(frozen=True)
class SmallerPage:
    """What to ask for after a failure: `limit` now, and `later` for the rest of the run if that works."""

    limit: int
    later: int
    cause: MuxerError


def reduce_limit(limit: int, error: MuxerError, pages: int) -> SmallerPage | None:
    """Return what to ask for after `error` ended a query for pages of `limit` recordings behind its first `pages`.

    None when the number of recordings is not the reason. One response too late may as well be an outage: a small page shows
    that. Refusals of later pages have other reasons, such as the limits of Elasticsearch.
    """
    half = limit // 2
    if error.is_too_long:
        return SmallerPage(half, half, error) if half else None
    if pages or limit <= DEFAULT_LIMIT:
        return None
    half = max(half, DEFAULT_LIMIT)
    if error.has_timed_out:
        return SmallerPage(DEFAULT_LIMIT, half, error)
    is_refused = isinstance(error, RequestRejected) and error.status == _BAD_REQUEST
    return SmallerPage(half, half, error) if is_refused else None
