"""Walks through the pages of a query of call recordings, plain or scan-and-scroll (gir-api, section 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from muxer.errors import NotFound, ServiceUnavailable, UnknownContactCenter
from muxer.gir.links import is_scan_query, next_link
from muxer.system.bounded_set import BoundedSet

log = logging.getLogger(__name__)

# Ids are remembered to skip repetitions; a repetition after that costs one request and does no harm.
MAX_REMEMBERED_IDS = 200_000
MAX_REMEMBERED_LINKS = 10_000
# This many pages in a row without new recordings are the end: some servers link the last page, too (our decision).
MAX_STALE_PAGES = 10
# The key that a fetch adds to a response which more than one request was needed for.
WAS_RETRIED = "wasRetried"

FetchPage = Callable[[str], Mapping[str, Any]]


class PageWalk:
    """The pages of one query, each id once. Memory does not grow with the window.

    `seen` are the ids that are left out. `has_link` and `has_recordings` are whether a response had any, `last` is the
    latest one. `went_round`: links led back to pages read before. `refusal` is the error that ended it, for its user to set.
    """

    def __init__(self, fetch: FetchPage, first: str, seen: BoundedSet | None = None) -> None:
        self._fetch = fetch
        self.first = first
        self._seen = BoundedSet(MAX_REMEMBERED_IDS) if seen is None else seen
        self._fresh_since_restart = 0
        self._has_progress = self._may_lack_page = False
        self.number = 0
        self.has_link = self.has_recordings = self.went_round = False
        self.refusal = ""
        self.last: Mapping[str, Any] = {}
        self.recordings: list[object] = []

    def __iter__(self) -> Iterator[list[object]]:
        """Yield page after page; what a scroll may lack is read by restarting it, as long as that brings new recordings."""
        restarted, expired_at = False, 0
        while True:
            try:
                yield from self._walk_pages()
                if not self._may_lack_page or (restarted and not self._fresh_since_restart):
                    return
                log.warning("RWS may have skipped a page of a scroll, because a request for it failed; reading it again")
            except _LinkExpired as error:
                if restarted and not self._fresh_since_restart:
                    if error.is_repeated and self.number >= expired_at:
                        return  # A scroll that keeps its id ends there each time.
                    twice = "the paging link of RWS expired twice without any new recording"
                    raise ServiceUnavailable(f"{twice}: {error}") from error
                log.warning("the paging link of RWS has expired; the query is restarted")
                expired_at = self.number
            restarted, self._fresh_since_restart = True, 0

    def _walk_pages(self) -> Iterator[list[object]]:
        link: str | None = self.first
        followed, walked, stale = BoundedSet(MAX_REMEMBERED_LINKS), BoundedSet(MAX_REMEMBERED_IDS), 0
        self.number, self._may_lack_page = 0, False
        while link is not None and stale < MAX_STALE_PAGES:
            is_repeated = not followed.add(link)
            try:
                response = self._fetch(link)
            except (NotFound, UnknownContactCenter) as error:
                if self.number:
                    raise _LinkExpired(str(error), is_repeated) from error
                raise
            # Each request for a scroll returns the next page: one whose response was lost is not returned again.
            is_scroll = self.number > 0 and (is_scan_query(self.first) or "scrollid" in link.lower())
            self._may_lack_page = self._may_lack_page or (is_scroll and WAS_RETRIED in response)
            link = self._record_response(response)
            # Not only the first one: all of them are to be remembered.
            has_new = sum(walked.add(_recording_id(raw)) for raw in self.recordings) > 0
            if fresh := self._new_recordings(self.recordings):
                yield fresh
            self._has_progress = self._has_progress or (has_new and self.number > 1)
            # A link that comes twice is the end, unless its page brought something new: a scroll may keep its id.
            if is_repeated and not has_new:
                break
            stale = 0 if has_new else stale + 1
        self.went_round = self.has_link and bool(self.recordings) and (link is not None or not self._has_progress)

    def _record_response(self, response: Mapping[str, Any]) -> str | None:
        self.last, self.recordings = response, _recordings_in(response)
        self.has_recordings = self.has_recordings or bool(self.recordings)
        self.number += 1
        link = next_link(response, self.first)
        self.has_link = self.has_link or link is not None
        return link

    def _new_recordings(self, page: list[object]) -> list[object]:
        fresh = [raw for raw in page if self._seen.add(_recording_id(raw))]
        self._fresh_since_restart += len(fresh)
        return fresh


class _LinkExpired(Exception):
    """The response to a paging link was 404. `is_repeated`: the link was followed before, and had a page then."""

    def __init__(self, text: str, is_repeated: bool) -> None:
        super().__init__(text)
        self.is_repeated = is_repeated


def _recording_id(raw: object) -> str:
    named = raw.get("id") if isinstance(raw, dict) else ""
    return named if isinstance(named, str) else ""


def _recordings_in(response: Mapping[str, Any]) -> list[object]:
    recordings = response.get("recordings")
    return recordings if isinstance(recordings, list) else []
