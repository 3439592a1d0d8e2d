"""All call recordings that a query finds, whatever way of paging RWS has (gir-api, section 3).

The form of the link to the next page is not public. So a page that may have been cut off is never taken for the end: the
query is read again without scan and scroll, or in time windows that are small enough for one page.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping

from muxer.errors import Forbidden, QueryIncomplete, RequestRejected, ServiceFailed, ServiceUnavailable
from muxer.gir.deviations import Deviation, Deviations
from muxer.gir.links import CONTAINERS, is_scan, keys_of, parameter, with_parameters, without_scan
from muxer.gir.models import Json, parse_time, to_microseconds
from muxer.gir.paging import REMEMBERED_IDS, Fetch, Pages
from muxer.gir.sweep import Sweep, Window
from muxer.remembered import Remembered

DEFAULT_LIMIT = 100
# A page of such a length may have been cut off by a limit of the server, whatever `limit` asked for: 100 by gir-api, the
# others are our decision. Smaller ones are frequent by chance, and each costs more requests.
SERVER_LIMITS = frozenset((50, 100, 200, 250, 500, 1000))
# So many readings of a query have to fail at a later page before that page is taken for one that RWS refuses for good.
REFUSALS_IN_A_ROW = 2
# So many of the shortest windows may be cut off without bringing anything new; then RWS ignores the times of a query.
MAX_STALE_WINDOWS = 10
INSTEAD = "; call recordings are read in time windows instead"
COMPARE = "compare docs/gir-api.md, section 3, with what RWS returns"
REMEDY = f"raise [advanced] pagination as far as RWS allows, and {COMPARE}"

# Names for the number of recordings that a query finds.
TOTALS = ("total", "totalCount", "totalRecords", "totalResults", "totalSize")
# What RWS answers to a page that it will not show later either.
REFUSALS = (RequestRejected, Forbidden)

Recordings = list[object]


class Listing:
    """Reads queries of call recordings. It remembers for the run what RWS understands. Safe to use from any thread."""

    def __init__(self, fetch: Fetch, deviations: Deviations, fetch_once: Fetch | None = None) -> None:
        """Create it. `fetch` returns the JSON object at a URL or link; `fetch_once` does so without retries."""
        self._fetch = fetch
        self._fetch_once = fetch_once or fetch
        self._deviations = deviations
        # Whether a query with scan and scroll (True), or one without (False), has shown a link that is understood.
        self._linked: set[bool] = set()
        self._scans = True
        self._refusals = 0
        # Whether RWS accepts a larger limit than that of the query; None until it was asked.
        self._accepts_more: bool | None = None

    def pages(self, url: str) -> Iterator[Recordings]:
        """Yield the raw call recordings of the query `url`, page by page, each id once.

        Raises QueryIncomplete after the last page when it is not known whether these are all, and what `fetch` raises.
        """
        seen = Remembered(REMEMBERED_IDS)
        walk = Pages(self._fetch, url if self._scans else without_scan(url), seen)
        is_refused = yield from self._read(walk)
        if is_scan(walk.first) and not (walk.has_recordings or True in self._linked):
            scan, walk = walk, Pages(self._fetch, without_scan(url), seen)
            is_refused = yield from self._read(walk)
            if walk.recordings:
                self._scans = False
                self._deviations.note(Deviation.EMPTY_SCAN, _empty_scan(scan))
        if _is_unread(walk.last):
            raise QueryIncomplete(
                "RWS returns call recordings in a form that the muxer does not understand: there is no list `recordings` "
                f"(keys of the response: {keys_of(walk.last)}); see whether [htcc] base_uri leads to RWS, and {COMPARE}"
            )
        if is_refused or self._may_be_cut(walk):
            yield from self._sweep(walk, seen, is_refused=is_refused)

    def _read(self, walk: Pages) -> Generator[Recordings, None, bool]:
        """Yield the pages of a walk. Returns True when it ended at a page that RWS refuses again and again. A server that
        asks to wait refuses nothing."""
        try:
            yield from walk
        except (*REFUSALS, ServiceUnavailable) as error:
            if not walk.number:
                raise
            walk.refusal = str(error)
            asked = getattr(error, "retry_after", None)
            self._refusals += asked is None
            if asked is not None or self._refusals < REFUSALS_IN_A_ROW:
                error.args = (f"page {walk.number + 1} of the query: {error}",)
                raise
            self._deviations.note(Deviation.PAGE_REFUSED, _cause(walk, is_refused=True) + INSTEAD)
            return True
        if walk.number > 1:
            self._refusals = 0
        if walk.has_link and walk.has_recordings and not walk.went_round:
            self._linked.add(is_scan(walk.first))
        return False

    def _may_be_cut(self, walk: Pages) -> bool:
        """Return whether a walk may have ended before the end of its query."""
        is_understood = walk.has_link or is_scan(walk.first) in self._linked
        return _is_full(walk) and (walk.went_round or not is_understood)

    def _sweep(self, walk: Pages, seen: Remembered, *, is_refused: bool) -> Iterator[Recordings]:
        """Yield what a query finds besides the pages of its `walk`, by reading it in time windows.

        More recordings are asked for at a time than before: that shows whether `limit` cut off the page. A page that was
        full by chance is no deviation.
        """
        url, count = without_scan(walk.first), len(walk.recordings)
        limit = self._largest_limit(url)
        url = with_parameters(url, limit=limit)
        sweep, longest, stale, has_new = Sweep(_span(walk)), _longest_ms(walk.recordings), 0, False
        cap = 0 if is_refused else count
        if is_refused and not is_scan(walk.first):
            sweep.halve()  # all of the span was just tried
        while (window := sweep.window) is not None and stale < MAX_STALE_WINDOWS:
            part = self._window(with_parameters(url, startTime=window.start, endTime=window.end), seen)
            brought, is_cut = yield from self._read_window(part)
            if brought and not (has_new or is_refused):
                self._deviations.note(Deviation.NO_LINK, _cause(walk, is_refused=False) + INSTEAD)
            has_new = has_new or brought
            longest = max(longest, _longest_ms(part.recordings))
            cap = cap if len(part.recordings) <= cap else 0
            is_cut = is_cut or 0 < len(part.recordings) == cap
            if is_cut and sweep.halve():
                continue
            stale += is_cut and not brought
            sweep.advance(is_whole=not is_cut, is_sparse=2 * len(part.recordings) < limit)
        is_proven = sweep.window is None and sweep.is_complete and longest <= sweep.covered_ms
        # A page that is full by chance is no deviation; windows that end early may not have shown whether it is.
        is_doubtful = has_new or is_refused or sweep.window is not None
        if is_doubtful and not is_proven:
            cause = _cause(walk, is_refused=is_refused)
            raise QueryIncomplete(f"RWS may not have shown all call recordings: {cause}; {REMEDY}")

    def _largest_limit(self, url: str) -> int:
        """Return how many recordings to ask for in a time window: more than the query `url` does, where RWS accepts that."""
        asked = _limit(url)
        more = max(asked + 1, DEFAULT_LIMIT)
        if self._accepts_more is None:
            try:
                self._fetch_once(with_parameters(url, limit=more))
                self._accepts_more = True
            except (RequestRejected, ServiceFailed):
                self._accepts_more = False
        return more if self._accepts_more else asked

    def _window(self, first: str, seen: Remembered) -> Pages:
        """Return the walk through a time window. When a later page fails, the window is halved: no need for retries."""
        return Pages(lambda link: (self._fetch if link == first else self._fetch_once)(link), first, seen)

    def _read_window(self, part: Pages) -> Generator[Recordings, None, tuple[bool, bool]]:
        """Yield the pages of a time window. Returns whether they brought anything new, and whether some may be missing."""
        brought = False
        try:
            for page in part:
                brought = True
                yield page
        except (*REFUSALS, ServiceUnavailable):
            if not part.number:
                raise
            return brought, True
        return brought, self._may_be_cut(part)


def _limit(url: str) -> int:
    """Return how many recordings a query asks for in one page."""
    text = parameter(url, "limit")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 10 else DEFAULT_LIMIT


def _is_full(walk: Pages) -> bool:
    """Return whether the last page of a walk may have been cut off by a limit, of the query or of the server."""
    count = len(walk.recordings)
    return count >= _limit(walk.first) or count in SERVER_LIMITS or count < _total(walk.last)


def _total(answer: Json) -> int:
    """Return how many recordings the query finds by a response that says so, 0 for others."""
    places = (answer, *(answer.get(name) for name in CONTAINERS))
    values = [place.get(name) for place in places if isinstance(place, Mapping) for name in TOTALS]
    return max((one for one in values if isinstance(one, int)), default=0)


def _is_unread(answer: Json) -> bool:
    """Return whether a response holds something, but no list of recordings."""
    others = (value for key, value in answer.items() if key not in CONTAINERS)
    return not isinstance(answer.get("recordings"), list) and any(isinstance(one, list | dict) and one for one in others)


def _span(walk: Pages) -> Window:
    """Return the span of time that a query asks for. Raises QueryIncomplete when it is not in milliseconds."""
    start, end = (parameter(walk.first, name) for name in ("startTime", "endTime"))
    if not all(one.isascii() and (one or "0").isdigit() and len(one) < 16 for one in (start, end)):
        cause = _cause(walk, is_refused=False)
        raise QueryIncomplete(f"the query has no startTime and endTime that can be halved: {cause}; {REMEDY}")
    return Window(int(start or 0), max(int(start or 0), int(end or time.time() * 1000)))


def _longest_ms(recordings: Iterable[object]) -> int:
    """Return the length of the longest recording by its metadata, in milliseconds."""
    return max((_length_ms(raw) for raw in recordings if isinstance(raw, dict)), default=0)


def _length_ms(raw: Json) -> int:
    start, stop = parse_time(raw.get("startTime")), parse_time(raw.get("stopTime"))
    return 0 if start is None or stop is None else (to_microseconds(stop) - to_microseconds(start)) // 1000


def _cause(walk: Pages, *, is_refused: bool) -> str:
    """Return why a walk may have ended too early, with the keys of its last response."""
    keys = f"keys of the response: {keys_of(walk.last)}"
    if is_refused:
        refused = f"RWS refuses page {walk.number + 1} of a query at every attempt"
        return f"{refused}: {walk.refusal} (of the page before it, {keys})"
    links = "only links that lead nowhere new" if walk.has_link else "no link to the next page that the muxer understands"
    return f"RWS returns a page of {len(walk.recordings)} call recordings with {links} ({keys})"


def _empty_scan(scan: Pages) -> str:
    what = "only empty pages" if scan.has_link else "an empty page without a link"
    return (
        f"RWS returns {what} to a query with scanAndScroll "
        f"(keys of the response: {keys_of(scan.last)}); call recordings are read without scanAndScroll"
    )
