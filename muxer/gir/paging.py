"""Walks through the pages of a query of call recordings, plain or scan-and-scroll (gir-api, section 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from muxer.errors import NotFound, ServiceUnavailable, UnknownContactCenter
from muxer.gir.links import is_scan_query, next_link
from muxer.gir.models import to_microseconds
from muxer.system.bounded_set import BoundedSet
from muxer.system.iso_time import parse_time

log = logging.getLogger(__name__)

# Ids are remembered to skip repetitions; a repetition after that costs one request and does no harm.
MAX_REMEMBERED_IDS = 200_000
MAX_REMEMBERED_LINKS = 10_000
# How often a query is read again from its first page without getting further than before.
MAX_RESTARTS = 3
# This many pages in a row without new recordings are the end: some servers link the last page, too (our decision).
MAX_STALE_PAGES = 10
# The key that a fetch adds to a response which more than one request was needed for.
WAS_RETRIED = "wasRetried"

FetchPage = Callable[[str], Mapping[str, Any]]


class PageWalk:
    """The pages of one query, each id once. Memory does not grow with the window.

    `seen` are the ids that are left out. `has_link` and `has_recordings` are whether a response had any, `last` is the
    latest one, `longest_ms` the length of the longest call, `count` the number of recordings in the latest reading.
    `went_round`: its links led back to pages read before. `has_expired`: they have expired at the same page twice. `is_cut`:
    that page was not shorter than those before it. `refusal` is why it may lack a page for good.
    """

    def __init__(self, fetch: FetchPage, first: str, seen: BoundedSet | None = None) -> None:
        self._fetch = fetch
        self.first = first
        self._seen = BoundedSet(MAX_REMEMBERED_IDS) if seen is None else seen
        self._fresh_since_restart = 0
        self._has_progress = False
        self._lost = LostPages()
        self.number = self.count = self.longest_ms = self._longest_page = 0
        self.has_link = self.has_recordings = self.went_round = self.has_expired = self.is_cut = False
        self.refusal = ""
        self.last: Mapping[str, Any] = {}
        self.recordings: list[object] = []

    def __iter__(self) -> Iterator[list[object]]:
        """Yield page after page; what a scroll may lack is read by restarting it, as long as that brings new recordings."""
        furthest, restarts, expiry = 0, 0, None
        while True:
            earlier, expiry, self._fresh_since_restart = expiry, None, 0
            self._lost.begin_reading()
            try:
                yield from self._walk_pages()
            except _LinkExpired as error:
                expiry = error
            self._lost.end_reading(self.number)
            # The next page takes long to process, or the scroll expires soon: each reading may get only one page further.
            is_further = expiry is not None and 0 < furthest < self.number
            may_restart = (is_further or restarts < MAX_RESTARTS) and (not furthest or self._fresh_since_restart > 0)
            if expiry is None or (expiry.is_same_end(earlier) and self.number == furthest):
                if not self._lost.pages:
                    # The end, or the longest time that RWS keeps a scroll: a full page is no end.
                    self.has_expired = expiry is not None
                    self.is_cut = self.has_expired and 0 < self._longest_page <= len(self.recordings)
                    return
                if not may_restart:
                    self.refusal = f"RWS skips page {min(self._lost.pages)} of a scroll, or one near it, at each reading"
                    return
                log.warning("RWS may have skipped a page of a scroll, because a request for it failed; reading it again")
            else:
                # The first expiry after another reason to restart is not one that repeats itself.
                if not may_restart and (restarts == MAX_RESTARTS or earlier is not None):
                    again = "the paging link of RWS expired again, and the query was read no further than before"
                    raise ServiceUnavailable(f"{again}: {expiry}") from expiry
                log.warning("the paging link of RWS has expired; the query is restarted")
            restarts += not is_further
            furthest = max(furthest, self.number)

    def _walk_pages(self) -> Iterator[list[object]]:
        link: str | None = self.first
        followed, walked, stale = BoundedSet(MAX_REMEMBERED_LINKS), BoundedSet(MAX_REMEMBERED_IDS), 0
        self.number = self.count = 0
        while link is not None and stale < MAX_STALE_PAGES:
            is_repeated = not followed.add(link)
            # Each request for a scroll returns the next page: one whose response was lost is not returned again.
            is_scroll = self.number > 0 and (is_scan_query(self.first) or "scrollid" in link.lower())
            try:
                response = self._fetch(link)
            except (NotFound, UnknownContactCenter) as error:
                if not self.number:
                    raise
                if is_scroll and error.was_retried:
                    self._lost.record_retry(self.number + 1)
                raise _LinkExpired(str(error), is_repeated) from error
            if is_scroll and WAS_RETRIED in response:
                self._lost.record_retry(self.number + 1)
            link = self._record_response(response)
            # Not only the first one: all of them are to be remembered.
            new = sum(walked.add(_recording_id(raw)) for raw in self.recordings)
            self.count, has_new = self.count + new, new > 0
            if fresh := self._new_recordings(self.recordings):
                yield fresh
            self._has_progress = self._has_progress or (has_new and self.number > 1)
            # A link that comes twice is the end, unless its page brought something new: a scroll may keep its id.
            if is_repeated and not has_new:
                break
            stale = 0 if has_new else stale + 1
        self.went_round = self.has_link and bool(self.recordings) and (link is not None or not self._has_progress)

    def _record_response(self, response: Mapping[str, Any]) -> str | None:
        if self.number:
            self._longest_page = max(self._longest_page, len(self.recordings))
        self.last, self.recordings = response, _recordings_in(response)
        self.longest_ms = max(self.longest_ms, *(_length_ms(raw) for raw in self.recordings), 0)
        self.has_recordings = self.has_recordings or bool(self.recordings)
        self.number += 1
        link = next_link(response, self.first)
        self.has_link = self.has_link or link is not None
        return link

    def _new_recordings(self, page: list[object]) -> list[object]:
        fresh = [raw for raw in page if self._seen.add(_recording_id(raw))]
        self._fresh_since_restart += len(fresh)
        return fresh


class LostPages:
    """The pages that no reading of a scroll has shown for certain.

    A request that was sent again may have lost its page, and all later pages have a smaller number then. New recordings
    between two readings move them, too. So the pages next to such a one count as lost as well.
    """

    def __init__(self) -> None:
        self.pages: set[int] = set()
        # The pages of the longest reading, and those that this reading may lack.
        self._count, self._uncertain, self._retries = 0, set[int](), 0

    def begin_reading(self) -> None:
        """Begin to read the scroll from its first page."""
        self._uncertain, self._retries = set(), 0

    def record_retry(self, number: int) -> None:
        """Record that the request for the page with this number was sent again."""
        self._uncertain |= set(range(number - 1, number + self._retries + 2))
        self._retries += 1

    def end_reading(self, count: int) -> None:
        """Record the end of a reading that has shown `count` pages."""
        still = {number for number in self.pages if number in self._uncertain or number > count}
        self.pages = still | {number for number in self._uncertain if number >= self._count}
        self._count = max(self._count, count)


class _LinkExpired(Exception):
    """The response to a paging link was 404. `is_repeated`: the link was followed before, and had a page then."""

    def __init__(self, text: str, is_repeated: bool) -> None:
        super().__init__(text)
        self.is_repeated = is_repeated

    def is_same_end(self, earlier: _LinkExpired | None) -> bool:
        """Return whether the reading before ended like this, too: a scroll that keeps its id does so each time."""
        return self.is_repeated and earlier is not None and earlier.is_repeated


def _recording_id(raw: object) -> str:
    named = raw.get("id") if isinstance(raw, dict) else ""
    return named if isinstance(named, str) else ""


def _recordings_in(response: Mapping[str, Any]) -> list[object]:
    recordings = response.get("recordings")
    return recordings if isinstance(recordings, list) else []


def _length_ms(raw: object) -> int:
    if not isinstance(raw, dict):
        return 0
    start, stop = parse_time(raw.get("startTime")), parse_time(raw.get("stopTime"))
    return 0 if start is None or stop is None else (to_microseconds(stop) - to_microseconds(start)) // 1000
