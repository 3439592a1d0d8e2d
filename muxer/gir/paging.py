"""Walks through the pages of a query of call recordings, plain or scan-and-scroll (gir-api, section 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from muxer.errors import NotFound, ServiceUnavailable
from muxer.gir.links import next_link, parameter
from muxer.remembered import Remembered

log = logging.getLogger(__name__)

# So many ids are remembered to leave out repetitions; a repetition after that costs one look-up and does no harm.
REMEMBERED_IDS = 200_000
# So many pages in a row that bring nothing new are the end, whatever their links say (our decision).
MOST_STALE_PAGES = 1000
# A scroll ends with an empty page, behind which some servers go on giving scroll ids (our decision).
MAX_EMPTY_SCROLL_PAGES = 10

Fetch = Callable[[str], Mapping[str, Any]]


class Pages:
    """The pages of one query: lists of raw recordings, each id once. Memory does not grow with the window.

    `first` is the URL of the query, `seen` the ids that are left out, because an earlier query has brought them. Of the
    walk so far: `number` counts its responses, `has_link` is whether one of them had a link, `last` is the latest response,
    `recordings` the recordings in it. `went_round` is whether its links only led to pages that brought nothing new.
    """

    def __init__(self, fetch: Fetch, first: str, seen: Remembered | None = None) -> None:
        self._fetch = fetch
        self.first = first
        self._seen = Remembered(REMEMBERED_IDS) if seen is None else seen
        self._fresh_since_restart = 0
        self._walked = 0
        self._has_progress = False
        self.number = 0
        self.has_link = self.went_round = False
        self.last: Mapping[str, Any] = {}
        self.recordings: list[object] = []

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
        link: str | None = self.first
        previous, stale, empty, followed = None, 0, 0, False
        # A query that is begun again has to pass all the pages that were read before.
        most, self._walked = self._walked + MOST_STALE_PAGES, 0
        while link is not None:
            self._walked += 1
            if empty >= MAX_EMPTY_SCROLL_PAGES and parameter(link, "scrollId"):
                return
            if stale >= most:
                log.warning("%d pages of RWS in a row brought nothing new; that is taken for the end", stale)
                self.went_round = True
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
            following = self._note(answer)
            fresh = self._fresh(self.recordings)
            if fresh:
                yield fresh
            # A link that comes twice is the end, unless its page brought something new: a scroll may keep its id.
            if repeated and not fresh:
                break
            stale = 0 if fresh else stale + 1
            empty = 0 if self.recordings else empty + 1
            self._has_progress = self._has_progress or bool(followed and fresh)
            previous, link, followed = link, following, True
        self.went_round = self.has_link and bool(self.recordings) and not self._has_progress

    def _note(self, answer: Mapping[str, Any]) -> str | None:
        """Keep the latest response and return the link that it contains."""
        self.last, self.recordings = answer, _recordings(answer)
        self.number += 1
        link = next_link(answer, self.first)
        self.has_link = self.has_link or link is not None
        return link

    def _fresh(self, page: list[object]) -> list[object]:
        fresh = [raw for raw in page if self._is_new(raw)]
        self._fresh_since_restart += len(fresh)
        return fresh

    def _is_new(self, raw: object) -> bool:
        named = raw.get("id") if isinstance(raw, dict) else ""
        return self._seen.add(named if isinstance(named, str) else "")


class _Expired(Exception):
    """A paging link answered not found."""


def _recordings(answer: Mapping[str, Any]) -> list[object]:
    recordings = answer.get("recordings")
    return recordings if isinstance(recordings, list) else []

