"""All call recordings that a query finds, whatever way of paging RWS has (gir-api, section 3).

A page that may have been cut off is never the end: the query is read again without scroll, or in time windows.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from itertools import islice

from muxer.errors import Forbidden, MuxerError, QueryIncomplete, RequestRejected, ServiceFailed, ServiceUnavailable
from muxer.gir.deviations import Deviation, DeviationLog
from muxer.gir.links import LINK_CONTAINERS, describe_keys, is_scan_query, query_parameter, with_parameters, without_scan
from muxer.gir.models import Json
from muxer.gir.page_size import DEFAULT_LIMIT, MAX_LIMIT, SmallerPage, reduce_limit
from muxer.gir.paging import MAX_REMEMBERED_IDS, FetchPage, PageWalk
from muxer.gir.sweep import SweepWindow, WindowSweep
from muxer.system.bounded_set import BoundedSet

# A page of such a length may have been cut off by a limit of the server, whatever `limit` asked for: 100 by gir-api, the
# others are our decision. Smaller ones are frequent by chance, and each costs more requests.
SERVER_LIMITS = frozenset((50, 100, 200, 250, 500, 1000))
# The number of readings of a query that must fail at a later page before that page counts as refused for good.
MAX_REFUSALS = 2
# The number of shortest windows that may be cut off without new recordings; then RWS ignores the times of a query.
MAX_STALE_WINDOWS = 10
FALLBACK_NOTICE = "; call recordings are read in time windows instead"
COMPARE_HINT = "compare docs/gir-api.md, section 3, with what RWS returns"
PAGINATION_HINT = f"raise [advanced] pagination as far as RWS allows, and {COMPARE_HINT}"

# Names for the number of recordings that a query finds.
TOTAL_KEYS = ("total", "totalCount", "totalRecords", "totalResults", "totalSize")
# The errors of a page that RWS will not return later either.
PAGE_REFUSALS = (RequestRejected, Forbidden)

RawRecordings = list[object]


class RecordingListing:
    """Reads queries of call recordings. It remembers for the run what RWS understands. Safe to use from any thread."""

    def __init__(self, fetch: FetchPage, deviations: DeviationLog, fetch_once: FetchPage | None = None) -> None:
        """Create it. `fetch` returns the JSON object at a URL or link; `fetch_once` does so without retries."""
        self._fetch = fetch
        self._fetch_once = fetch_once or fetch
        self._deviations = deviations
        # Whether a query with scan and scroll (True), or one without (False), has shown a link that is understood.
        self._linked: set[bool] = set()
        self._scans = True
        # How often the page of this number was refused.
        self._refused_page, self._refusals = 0, 0
        # The largest page to ask for.
        self._max_limit = MAX_LIMIT
        # Whether two small pages have shown no link either.
        self._shows_no_link = False
        # Whether RWS accepts a larger limit than that of the query; None until it was asked.
        self._accepts_more: bool | None = None

    def read_pages(self, url: str) -> Iterator[RawRecordings]:
        """Yield the raw recordings of a query page by page, each id once. Raises QueryIncomplete after the last page."""
        seen = BoundedSet(MAX_REMEMBERED_IDS)
        walk, is_refused = yield from self._read_query(url if self._scans else without_scan(url), seen)
        if is_scan_query(walk.first) and not (walk.has_recordings or True in self._linked):
            scan = walk
            walk, is_refused = yield from self._read_query(without_scan(url), seen)
            if walk.recordings:
                self._scans = False
                self._deviations.record_deviation(Deviation.EMPTY_SCAN, _describe_empty_scan(scan))
        if _is_unread(walk.last):
            raise QueryIncomplete(
                "RWS returns call recordings in a form that the muxer does not understand: there is no list `recordings` "
                f"(keys of the response: {describe_keys(walk.last)}); check [htcc] base_uri, and {COMPARE_HINT}"
            )
        if is_refused or self._may_be_cut(walk):
            yield from self._sweep_windows(walk, seen, is_refused=is_refused)

    def _read_query(self, url: str, seen: BoundedSet) -> Generator[RawRecordings, None, tuple[PageWalk, bool]]:
        """Yield the pages of a query, smaller ones when RWS does not return them. Returns the walk, and as _read_walk."""
        limit, smaller = _page_limit(url), None
        while True:
            limit = min(limit, self._max_limit)
            walk = PageWalk(self._fetch, url if limit == _page_limit(url) else with_parameters(url, limit=limit), seen)
            try:
                is_refused = yield from self._read_walk(walk)
            except MuxerError as error:
                smaller = reduce_limit(limit, error, walk.number)
                if smaller is None:
                    raise
                limit = smaller.limit
                continue
            if smaller is not None:
                self._keep_limit(smaller, _page_limit(url))
            return walk, is_refused

    def _keep_limit(self, smaller: SmallerPage, asked: int) -> None:
        self._max_limit = smaller.later
        what = f"RWS does not return {asked} call recordings on a page: {smaller.cause}"
        advice = f"the muxer asks for {smaller.later} until it is restarted; set [advanced] pagination to that"
        self._deviations.record_deviation(Deviation.SMALLER_PAGES, f"{what}; {advice}")

    def _read_walk(self, walk: PageWalk) -> Generator[RawRecordings, None, bool]:
        """Yield the pages of a walk. Returns True when RWS refuses a page, or skips one, again and again."""
        try:
            yield from walk
        except (*PAGE_REFUSALS, ServiceUnavailable) as error:
            if not walk.number or error.is_too_long:
                raise
            asked = getattr(error, "retry_after", None)
            if asked is not None or not self._is_refused_for_good(walk.number + 1, error):
                error.args = (f"page {walk.number + 1} of the query: {error}",)
                raise
            walk.refusal = f"RWS refuses page {walk.number + 1} of a query at every attempt: {error}"
        if walk.refusal:
            self._deviations.record_deviation(Deviation.PAGE_REFUSED, _describe_cause(walk) + FALLBACK_NOTICE)
            return True
        if walk.number >= self._refused_page:
            self._refused_page, self._refusals = 0, 0
        if walk.has_link and walk.has_recordings and not (walk.went_round or walk.has_expired):
            self._linked.add(is_scan_query(walk.first))
        return False

    def _is_refused_for_good(self, page: int, error: MuxerError) -> bool:
        """Count a refusal of a page. A failure must be repeated at the same page; shorter walks do not get that far."""
        if page != self._refused_page:
            self._refused_page, self._refusals = page, 0
        self._refusals += MAX_REFUSALS if isinstance(error, PAGE_REFUSALS) else 1
        return self._refusals >= MAX_REFUSALS

    def _may_be_cut(self, walk: PageWalk) -> bool:
        if walk.has_expired:  # Its last page is compared with those before it, which show what a page can hold.
            return walk.is_cut or walk.count < _stated_total(walk.last)
        if not walk.went_round and (walk.has_link or is_scan_query(walk.first) in self._linked):
            return False
        # A server may have any limit below a large one that was asked for.
        return _is_full(walk) or (len(walk.recordings) >= DEFAULT_LIMIT and not self._links_small_pages(walk.first))

    def _links_small_pages(self, url: str) -> bool:
        """Return whether RWS links the pages of a query when they are small: then a large page without a link is the end."""
        if not self._shows_no_link:
            probe = PageWalk(self._fetch_once, with_parameters(url, limit=DEFAULT_LIMIT // 2))
            try:
                is_linked = sum(1 for _ in islice(probe, 2)) > 1
            except MuxerError:
                return False
            if is_linked:
                self._linked.add(is_scan_query(url))
            self._shows_no_link = not is_linked
        return is_scan_query(url) in self._linked

    def _sweep_windows(self, walk: PageWalk, seen: BoundedSet, *, is_refused: bool) -> Iterator[RawRecordings]:
        """Yield what a query finds besides its `walk`, in time windows, with a larger limit than before."""
        url, count = without_scan(walk.first), len(walk.recordings)
        limit = self._largest_limit(url)
        url = with_parameters(url, limit=limit)
        sweep, longest, stale, has_new = WindowSweep(_query_span(walk)), walk.longest_ms, 0, False
        cap = 0 if is_refused else count
        if is_refused and not is_scan_query(walk.first):
            sweep.halve_window()  # all of the span was just tried
        while (window := sweep.window) is not None and stale < MAX_STALE_WINDOWS:
            part = self._walk_window(with_parameters(url, startTime=window.start, endTime=window.end), seen)
            brought, is_cut = yield from self._read_window(part)
            if brought and not (has_new or is_refused):
                self._deviations.record_deviation(Deviation.NO_LINK, _describe_cause(walk) + FALLBACK_NOTICE)
            has_new = has_new or brought
            longest = max(longest, part.longest_ms)
            cap = cap if len(part.recordings) <= cap else 0
            is_cut = is_cut or 0 < len(part.recordings) == cap
            if is_cut and sweep.halve_window():
                continue
            stale += is_cut and not brought
            sweep.next_window(is_whole=not is_cut, is_sparse=2 * len(part.recordings) < limit)
        is_proven = sweep.window is None and sweep.is_complete and longest <= sweep.covered_ms
        # A page that is full by chance is no deviation; windows that end early may not have shown whether it is.
        is_doubtful = has_new or is_refused or sweep.window is not None
        if is_doubtful and not is_proven:
            raise QueryIncomplete(
                f"RWS may not have returned all call recordings: {_describe_cause(walk)}; {PAGINATION_HINT}"
            )

    def _largest_limit(self, url: str) -> int:
        """Return how many recordings to ask for in a time window: more than the query `url` does, where RWS accepts that."""
        asked = _page_limit(url)
        more = max(asked + 1, DEFAULT_LIMIT)
        if self._accepts_more is None:
            try:
                self._fetch_once(with_parameters(url, limit=more))
                self._accepts_more = True
            except (RequestRejected, ServiceFailed):
                self._accepts_more = False
        return more if self._accepts_more else asked

    def _walk_window(self, first: str, seen: BoundedSet) -> PageWalk:
        """Return the walk through a time window. When a later page fails, the window is halved: no need for retries."""
        return PageWalk(lambda link: (self._fetch if link == first else self._fetch_once)(link), first, seen)

    def _read_window(self, part: PageWalk) -> Generator[RawRecordings, None, tuple[bool, bool]]:
        """Yield the pages of a time window. Returns whether they brought anything new, and whether some may be missing."""
        brought = False
        try:
            for page in part:
                brought = True
                yield page
        except (*PAGE_REFUSALS, ServiceUnavailable):
            if not part.number:
                raise
            return brought, True
        return brought, bool(part.refusal) or self._may_be_cut(part)


def _page_limit(url: str) -> int:
    text = query_parameter(url, "limit")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 10 else DEFAULT_LIMIT


def _is_full(walk: PageWalk) -> bool:
    """Return whether the last page of a walk may have been cut off by a limit, of the query or of the server."""
    count = len(walk.recordings)
    return count >= _page_limit(walk.first) or count in SERVER_LIMITS or count < _stated_total(walk.last)


def _stated_total(response: Json) -> int:
    """Return how many recordings the query finds by a response that says so, 0 for others."""
    places = (response, *(response.get(name) for name in LINK_CONTAINERS))
    values = [place.get(name) for place in places if isinstance(place, Mapping) for name in TOTAL_KEYS]
    return max((one for one in values if isinstance(one, int)), default=0)


def _is_unread(response: Json) -> bool:
    """Return whether a response has content, but no list of recordings."""
    others = (value for key, value in response.items() if key not in LINK_CONTAINERS)
    return not isinstance(response.get("recordings"), list) and any(isinstance(one, list | dict) and one for one in others)


def _query_span(walk: PageWalk) -> SweepWindow:
    """Return the span of time that a query asks for. Raises QueryIncomplete when it is not in milliseconds."""
    start, end = (query_parameter(walk.first, name) for name in ("startTime", "endTime"))
    if not all(one.isascii() and (one or "0").isdigit() and len(one) < 16 for one in (start, end)):
        cause = _describe_cause(walk)
        raise QueryIncomplete(f"the query has no startTime and endTime that can be halved: {cause}; {PAGINATION_HINT}")
    return SweepWindow(int(start or 0), max(int(start or 0), int(end or time.time() * 1000)))


def _describe_cause(walk: PageWalk) -> str:
    """Return why a walk may lack recordings, with the keys of its last response."""
    keys = f"keys of the response: {describe_keys(walk.last)}"
    if walk.refusal:
        return f"{walk.refusal} (of the last page, {keys})"
    links = (
        "only links to pages that were read before"
        if walk.has_link
        else "no link to the next page that the muxer understands"
    )
    return f"RWS returns a page of {len(walk.recordings)} call recordings with {links} ({keys})"


def _describe_empty_scan(scan: PageWalk) -> str:
    what = "only empty pages" if scan.has_link else "an empty page without a link"
    return (
        f"RWS returns {what} to a query with scanAndScroll "
        f"(keys of the response: {describe_keys(scan.last)}); call recordings are read without scanAndScroll"
    )
