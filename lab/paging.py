"""The pages of a query: by offset, or along a scroll [gir-api 3]."""

import hashlib
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from lab.service import RequestRefused
from lab.switches import Switches

MAX_SCROLLS = 1000


@dataclass(frozen=True)
class ResultPage:
    """The ids on a page, and the query of the next one, or None at the end."""

    ids: list[str]
    next_query: str | None


@dataclass(frozen=True)
class _Scroll:
    ids: Sequence[str]
    position: int
    limit: int
    query: str


def offset_page(ids: Sequence[str], parameters: dict[str, str], offset: int, limit: int) -> ResultPage:
    """Return the page from `offset` on; the next link repeats the query with the next offset [OURS]."""
    end = offset + limit
    next_query = urlencode({**parameters, "offset": end}) if end < len(ids) else None
    return ResultPage(list(ids[offset:end]), next_query)


class ScrollRegistry:
    """The open scans of a server. Each link has its own scrollId: following it twice returns the same page twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, _Scroll] = {}
        self._expired: set[str] = set()

    def begin_scroll(self, ids: Sequence[str], limit: int, query: str, switches: Switches) -> ResultPage:
        """Return the first page of a scan, whose order is arbitrary [gir-api 3]."""
        shuffled = sorted(ids, key=lambda text: hashlib.sha256(text.encode()).digest())
        scroll = _Scroll(shuffled, 0, limit, query)
        if switches.scroll_empty_first_page:
            return ResultPage([], self._create_link(scroll))
        return self._next_page(scroll, switches)

    def follow_scroll(self, scroll_id: str, switches: Switches) -> ResultPage:
        """Return the page of a scrollId. Raises RequestRefused (404/6) if it is unknown or has expired [gir-api 3]."""
        with self._lock:
            scroll = self._open.get(scroll_id)
            expiring = scroll and switches.scroll_expires_once and scroll.query not in self._expired
            if scroll and expiring:
                self._expired.add(scroll.query)
                del self._open[scroll_id]
        if scroll is None or expiring:
            raise RequestRefused(404, 6, "The scroll has expired")
        return self._next_page(scroll, switches)

    def _next_page(self, scroll: _Scroll, switches: Switches) -> ResultPage:
        repeated = list(scroll.ids[:1]) if switches.scroll_repeats_ids and scroll.position else []
        end = scroll.position + max(1, scroll.limit - len(repeated))
        ids = repeated + list(scroll.ids[scroll.position : end])
        more = end < len(scroll.ids)
        return ResultPage(ids, self._create_link(_Scroll(scroll.ids, end, scroll.limit, scroll.query)) if more else None)

    def _create_link(self, scroll: _Scroll) -> str:
        scroll_id = secrets.token_urlsafe(24)
        with self._lock:
            self._open[scroll_id] = scroll
            if len(self._open) > MAX_SCROLLS:
                del self._open[next(iter(self._open))]
        return urlencode({"scanAndScroll": "true", "limit": scroll.limit, "scrollId": scroll_id})
