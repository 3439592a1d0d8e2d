"""Walks through the pages of a query of call recordings, plain or scan-and-scroll (gir-api, section 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from muxer.errors import NotFound, ServiceUnavailable, UnknownContactCenter
from muxer.gir.links import next_link
from muxer.system.bounded_set import BoundedSet

log = logging.getLogger(__name__)

# Ids are remembered to skip repetitions; a repetition after that costs one request and does no harm.
MAX_REMEMBERED_IDS = 200_000
MAX_REMEMBERED_LINKS = 10_000
# This many pages in a row without new recordings are the end: some servers link the last page, too (our decision).
MAX_STALE_PAGES = 10

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
        self._has_progress = False
        self.number = 0
        self.has_link = self.has_recordings = self.went_round = False
        self.refusal = ""
        self.last: Mapping[str, Any] = {}
        self.recordings: list[object] = []

    def __iter__(self) -> Iterator[list[object]]:
        """Yield page after page; an expired scroll is restarted once whenever it has brought new recordings."""
        restarted = False
        while True:
            try:
                yield from self._walk_pages()
                return
            except _LinkExpired as error:
                if restarted and not self._fresh_since_restart:
                    twice = "the paging link of RWS expired twice without any new recording"
                    raise ServiceUnavailable(f"{twice}: {error}") from error
                log.warning("the paging link of RWS has expired; the query is restarted")
                restarted, self._fresh_since_restart = True, 0

    def _walk_pages(self) -> Iterator[list[object]]:
        link: str | None = self.first
        followed, walked, stale = BoundedSet(MAX_REMEMBERED_LINKS), BoundedSet(MAX_REMEMBERED_IDS), 0
        self.number = 0
        while link is not None and stale < MAX_STALE_PAGES:
            is_repeated = not followed.add(link)
            try:
                response = self._fetch(link)
            except (NotFound, UnknownContactCenter) as error:
                if is_repeated:
                    return
                if self.number:
                    raise _LinkExpired(str(error)) from error
                raise
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
    """The response to a paging link was 404."""


def _recording_id(raw: object) -> str:
    named = raw.get("id") if isinstance(raw, dict) else ""
    return named if isinstance(named, str) else ""


def _recordings_in(response: Mapping[str, Any]) -> list[object]:
    recordings = response.get("recordings")
    return recordings if isinstance(recordings, list) else []
