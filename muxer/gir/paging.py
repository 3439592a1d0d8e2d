"""Walks through the pages of a query of call recordings, plain or scan-and-scroll (gir-api, section 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from muxer.errors import NotFound, ServiceUnavailable
from muxer.remembered import Remembered

log = logging.getLogger(__name__)

# So many ids are remembered to leave out repetitions; a repetition after that costs one look-up and does no harm.
REMEMBERED_IDS = 200_000
# So many pages in a row that bring nothing new are the end, whatever their links say (our decision).
MOST_STALE_PAGES = 1000

Fetch = Callable[[str], dict[str, Any]]


class Pages:
    """The pages of one query: lists of raw recordings, each id once. Memory does not grow with the window."""

    def __init__(self, fetch: Fetch, first: str) -> None:
        self._fetch = fetch
        self._first = first
        self._seen = Remembered(REMEMBERED_IDS)
        self._fresh_since_restart = 0
        self._walked = 0

    def __iter__(self) -> Iterator[list[object]]:
        """Yield page after page. Raise what ``fetch`` raises; an expired scroll is begun again as long as that helps.

        The spec restarts an expired query once; a migration may outlive many scrolls, so the one restart is granted
        again whenever the query has brought new recordings since the last one.
        """
        restarted = False
        while True:
            try:
                yield from self._walk()
                return
            except _Expired as error:
                if restarted and not self._fresh_since_restart:
                    raise ServiceUnavailable("the paging link of RWS expired twice without any new recording") from error
                log.warning("the paging link of RWS has expired; the query is begun again")
                restarted, self._fresh_since_restart = True, 0

    def _walk(self) -> Iterator[list[object]]:
        link: str | None = self._first
        previous, stale, followed = None, 0, False
        # A query that is begun again has to pass all the pages that were read before.
        most, self._walked = self._walked + MOST_STALE_PAGES, 0
        while link is not None:
            self._walked += 1
            if stale >= most:
                log.warning("%d pages of RWS in a row brought nothing new; that is taken for the end", stale)
                return
            repeated = link == previous
            try:
                answer = self._fetch(link)
            except NotFound as error:
                if repeated:
                    return
                if followed:
                    raise _Expired from error
                raise
            page = _recordings(answer)
            fresh = self._fresh(page)
            if fresh:
                yield fresh
            # A link that comes twice is the end, unless its page brought something new: a scroll may keep its id.
            if repeated and not fresh:
                return
            stale = 0 if fresh else stale + 1
            previous, link, followed = link, _next_link(answer), True

    def _fresh(self, page: list[object]) -> list[object]:
        fresh = [raw for raw in page if self._is_new(raw)]
        self._fresh_since_restart += len(fresh)
        return fresh

    def _is_new(self, raw: object) -> bool:
        named = raw.get("id") if isinstance(raw, dict) else ""
        return self._seen.add(named if isinstance(named, str) else "")


class _Expired(Exception):
    """A paging link answered not found."""


def _recordings(answer: dict[str, Any]) -> list[object]:
    recordings = answer.get("recordings")
    return recordings if isinstance(recordings, list) else []


def _next_link(answer: dict[str, Any]) -> str | None:
    """Return the link to the next page in any of the forms of gir-api, None at the end."""
    paging = answer.get("paging")
    candidates = (paging.get("next") if isinstance(paging, dict) else None, answer.get("nextUri"), answer.get("next"))
    return next((str(link) for link in candidates if link), None)
