"""Scrolls as Elasticsearch has them: each request takes the next page, also one whose response is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from muxer.errors import (
    AccessDenied,
    Forbidden,
    MediaNotFound,
    MuxerError,
    NotFound,
    RequestRejected,
    ServiceFailed,
    ServiceUnavailable,
)
from muxer.gir import session
from muxer.gir.rcs import MIN_REFUSED_FILES, RcsClient
from muxer.gir.responses import HttpResponse
from muxer.gir.rws import MAX_BAD_IN_A_ROW, MAX_FAILURES_IN_A_ROW, RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession

COUNT, LIMIT = 1000, 100
QUERY = f"startTime=0&endTime=1000000&limit={LIMIT}&scanAndScroll=true"
ACCOUNT = ServiceAccount("RWS", "http://rws", "ops", "secret", trusted_ca=False, timeout=30)


class ScrollSession(ServiceSession):
    """A session with one scroll. `lost` are pages whose response is lost, `expires` those before which it expires.

    With `ends` it ends by 404; `slow` is a page whose response is lost each time. Without a scroll, all of a query's times
    is on one page. No scroll has more than `longest` pages, each of `size` recordings. Its pages state a `total`.
    """

    count, longest, size, total = COUNT, COUNT, LIMIT, 0

    def __init__(
        self, *, keeps_id: bool, lost: Sequence[int] = (), expires: Sequence[int] = (), ends: bool = False, slow: int = -1
    ) -> None:
        super().__init__(ACCOUNT, threading.Event())
        self._keeps_id, self._lost, self._expires, self._ends = keeps_id, list(lost), list(expires), ends
        self._slow = slow
        self._page, self._is_open, self.requests = 0, False, 0

    def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
        self.requests += 1
        assert self.requests < 200, "the query never ends"
        if "scrollId" not in target:
            self._page, self._is_open = 0, True
            if "scanAndScroll" not in target:
                return self._find_in_window(target)
        if self._page in self._expires:
            self._expires.remove(self._page)
            self._is_open = False
        first = self._page * self.size
        if not self._is_open or (self._ends and first >= self.count) or self._page == self.longest:
            raise NotFound("HTTP 404, statusCode 6", 404, 6)
        self._page += 1
        number = self._page - 1
        if number == self._slow or number in self._lost:
            self._lost = [one for one in self._lost if one != number]
            raise ServiceUnavailable("RWS GET: connection reset")
        found = [{"id": f"call-{number}"} for number in range(first, min(first + self.size, self.count))]
        id_ = "same" if self._keeps_id else f"page-{self._page}"
        link = {"paging": {"next": f"api/v2/ops/contact-centers/c/recordings?scrollId={id_}"}} if found else {}
        stated = {"statusCode": 0, "total": self.total, "recordings": found}
        return HttpResponse("RWS GET", 200, {}, json.dumps(stated | link).encode())

    def _find_in_window(self, target: str) -> HttpResponse:
        start, end = (int(parse_qs(urlsplit(target).query)[name][0]) // 1000 for name in ("startTime", "endTime"))
        found = [{"id": f"call-{number}"} for number in range(start, min(end, COUNT))][:LIMIT]
        return HttpResponse("RWS GET", 200, {}, json.dumps({"statusCode": 0, "recordings": found}).encode())


@pytest.fixture(autouse=True)
def without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "step_delay", lambda *_: 0.0)


def read_all(pages: ScrollSession) -> list[str]:
    return [call.id for page in RwsClient(pages, "c").read_call_recordings(QUERY) for call in page]


@pytest.mark.parametrize("keeps_id", [True, False])
@pytest.mark.parametrize(
    ("lost", "expires"),
    [
        ((), ()),
        ((3,), ()),
        ((1,), ()),
        ((9,), ()),
        ((3, 5), ()),
        ((), (3,)),
        ((), (1,)),
        ((), (3, 7)),
        ((), (5, 2)),
        ((4,), (6,)),
        ((6,), (4,)),
        ((3, 6), (5,)),
    ],
)
def test_no_page_of_a_scroll_is_lost(keeps_id: bool, lost: Sequence[int], expires: Sequence[int]) -> None:
    pages = ScrollSession(keeps_id=keeps_id, lost=lost, expires=expires)
    try:
        found = read_all(pages)
    except ServiceUnavailable:
        assert list(expires) == [5, 2]  # The restarted scroll expires before it has brought anything new: that is said.
        return
    assert sorted(found) == sorted(f"call-{number}" for number in range(COUNT))


@pytest.mark.parametrize("keeps_id", [True, False])
def test_a_scroll_that_is_not_disturbed_is_read_once(keeps_id: bool) -> None:
    read_all(pages := ScrollSession(keeps_id=keeps_id))
    assert pages.requests == COUNT // LIMIT + 1


@pytest.mark.parametrize("last", [LIMIT // 2 + 5, LIMIT // 2])
@pytest.mark.parametrize("total", [0, COUNT - LIMIT])
def test_a_scroll_that_ends_by_an_error_each_time_is_complete(last: int, total: int) -> None:
    """Its id is the same for all pages, so the error is either its end or its expiry: it is read twice.

    The last page is shorter than the others, also when another server may have that limit, and it is less than a total.
    """
    pages = ScrollSession(keeps_id=True, ends=True)
    pages.count, pages.total = COUNT - LIMIT + last, total and total + last
    assert len(read_all(pages)) == pages.count and pages.requests == 2 * (COUNT // LIMIT + 1)


def test_a_scroll_that_expires_twice_before_its_stated_total_does_not_end_there() -> None:
    pages = ScrollSession(keeps_id=True, ends=True)
    pages.count, pages.total = COUNT - LIMIT // 2 + 5, COUNT
    assert len(read_all(pages)) == COUNT


@pytest.mark.parametrize("size", [LIMIT, LIMIT - 30])
@pytest.mark.parametrize("longest", [2, 4, COUNT // LIMIT])
def test_a_scroll_that_expires_at_the_same_page_each_time_does_not_end_there(
    longest: int, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A server may keep a scroll for a fixed time or number of pages, whether its pages are read or not."""
    pages = ScrollSession(keeps_id=True)
    pages.longest, pages.size = longest, size
    assert sorted(read_all(pages)) == sorted(f"call-{number}" for number in range(COUNT))
    is_cut = longest * size < COUNT
    assert ("call recordings are read in time windows instead" in caplog.text) == is_cut


@pytest.mark.parametrize("keeps_id", [True, False])
def test_a_page_that_is_lost_at_each_reading_is_read_in_time_windows(
    keeps_id: bool, caplog: pytest.LogCaptureFixture
) -> None:
    found = read_all(ScrollSession(keeps_id=keeps_id, slow=4))
    assert sorted(found) == sorted(f"call-{number}" for number in range(COUNT))
    assert "RWS skips page 4 of a scroll, or one near it, at each reading" in caplog.text


@pytest.mark.parametrize("keeps_id", [True, False])
def test_an_expiry_while_a_lost_page_is_read_again_is_no_end(keeps_id: bool) -> None:
    class ExpiringOnce(ScrollSession):
        """The second reading expires, after the first one has lost a page."""

        def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
            if "scrollId" not in target:
                self.readings = getattr(self, "readings", 0) + 1
                self._expires = [3] if self.readings == 2 else []
            return super()._send_and_read(method, target, body)

    found = read_all(ExpiringOnce(keeps_id=keeps_id, lost=(5,)))
    assert sorted(found) == sorted(f"call-{number}" for number in range(COUNT))


@pytest.mark.parametrize("ends", [True, False])
def test_more_recordings_than_are_remembered_are_not_read_for_ever(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("paging", "listing"):
        monkeypatch.setattr(f"muxer.gir.{module}.MAX_REMEMBERED_IDS", COUNT // 2)
    pages = ScrollSession(keeps_id=True, ends=ends, slow=-1 if ends else 4)
    assert set(read_all(pages)) == {f"call-{number}" for number in range(COUNT)}


def test_a_last_page_that_is_lost_at_each_reading_of_a_scroll_that_ends_by_an_error_is_not_missing() -> None:
    """The request that is sent again returns the error of the end."""
    found = read_all(ScrollSession(keeps_id=True, ends=True, slow=COUNT // LIMIT - 1))
    assert sorted(found) == sorted(f"call-{number}" for number in range(COUNT))


class ScreenSession(ServiceSession):
    """A session whose screen recordings exist; some of them fail with an error, alone and in bulk."""

    def __init__(self, bad: Sequence[int], error: MuxerError) -> None:
        super().__init__(ACCOUNT, threading.Event())
        self._bad, self._error = {f"call-{number}" for number in bad}, error

    def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
        _, is_bulk, text = target.partition("?ids=")
        ids = text.split(",") if is_bulk else [target.rpartition("/")[2]]
        if self._bad & set(ids):
            raise self._error
        found = [{"id": one, "region": "r", "mediaFiles": [{"mediaId": "s.mp4", "type": "video/mp4"}]} for one in ids]
        content = {"recordings": found} if is_bulk else {"recording": found[0]}
        return HttpResponse("RWS GET", 200, {}, json.dumps({"statusCode": 0} | content).encode())


ERRORS = [ServiceFailed("HTTP 500"), Forbidden("HTTP 403"), RequestRejected("HTTP 400", 400)]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("first", "count"), [(0, 1), (37, 5), (95, 5), (40, MAX_FAILURES_IN_A_ROW)])
@pytest.mark.parametrize("bulk", [True, False])
def test_recordings_that_rws_cannot_return_affect_only_themselves(
    error: MuxerError, first: int, count: int, bulk: bool
) -> None:
    ids, skipped = [f"call-{number}" for number in range(100)], []
    bad = range(first, first + count)
    client = RwsClient(ScreenSession(bad, error), "c")
    found = client.fetch_screen_recordings(ids, bulk, lambda one, _: skipped.append(one))
    assert skipped == [f"call-{number}" for number in bad] and set(found) == set(ids) - set(skipped)


@pytest.mark.parametrize("error", [ServiceFailed("HTTP 500"), Forbidden("HTTP 403"), ServiceUnavailable("no response")])
def test_an_outage_is_not_taken_for_bad_recordings(error: MuxerError) -> None:
    ids, skipped = [f"call-{number}" for number in range(100)], []
    with pytest.raises(type(error)):
        client = RwsClient(ScreenSession(range(100), error), "c")
        client.fetch_screen_recordings(ids, True, lambda one, _: skipped.append(one))
    assert len(skipped) <= MAX_BAD_IN_A_ROW


@pytest.mark.parametrize("error", ERRORS)
def test_a_file_that_rcs_does_not_find_is_missing_whatever_its_other_paths_return(error: MuxerError) -> None:
    class RcsSession(ServiceSession):
        def check_media(self, target: str) -> None:
            if "known" not in target:
                raise NotFound("HTTP 404", 404) if target.startswith("contact-centers/") else error

    rcs = RcsClient(RcsSession(ACCOUNT, threading.Event()), "c")
    # Until RCS has played something, it may lack that family of paths: then refusals of several files count.
    for number in range(1, 8):
        is_denied = isinstance(error, Forbidden) and number >= MIN_REFUSED_FILES
        with pytest.raises(AccessDenied if is_denied else MediaNotFound):
            rcs.check_screen_media("call", f"screen-{number}.mp4")
    rcs.check_screen_media("call", "known.mp4")
    with pytest.raises(MediaNotFound):
        rcs.check_screen_media("call", "screen.mp4")


class ArrivingSession(ScreenSession):
    """After the first bulk query, the screen recordings from number `arrived` on arrive."""

    arrived = 60

    def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
        head, is_bulk, text = target.partition("?ids=")
        known = {f"call-{number}" for number in range(self.arrived)}
        if not is_bulk:
            if head.rpartition("/")[2] not in known:
                raise NotFound("HTTP 404", 404)
            return super()._send_and_read(method, target)
        response = super()._send_and_read(method, f"{head}?ids={','.join(one for one in text.split(',') if one in known)}")
        self.arrived = 100
        return response


def test_screens_that_arrive_between_two_requests_are_found_and_do_not_end_bulk_reading() -> None:
    client = RwsClient(ArrivingSession((), ServiceFailed("unused")), "c")
    # The last poll of a migration, or of the window, would take those that are left out for calls without a screen.
    assert len(client.fetch_screen_recordings([f"call-{number}" for number in range(100)])) == 100
    assert client.reads_in_bulk


def test_a_screen_that_arrives_for_calls_without_any_does_not_end_bulk_reading() -> None:
    rws = ArrivingSession((), ServiceFailed("unused"))
    client = RwsClient(rws, "c")
    client.fetch_screen_recordings(["call-1"])
    client.fetch_screen_recordings(["none"])
    rws.arrived = 60
    assert set(client.fetch_screen_recordings(["call-70"])) == {"call-70"}
    assert client.reads_in_bulk


def test_a_server_whose_bulk_responses_are_always_empty_is_not_trusted_at_the_end() -> None:
    """The few that are read one by one may all have no screen recording."""

    class EmptySession(ScreenSession):
        def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
            if target.endswith("/call-1"):
                return super()._send_and_read(method, target)
            if "?ids=" not in target:
                raise NotFound("HTTP 404", 404)
            return HttpResponse("RWS GET", 200, {}, b'{"statusCode": 0, "recordings": []}')

    client, ids = RwsClient(EmptySession((), ServiceFailed("unused")), "c"), [f"call-{number}" for number in range(100)]
    assert not client.fetch_screen_recordings(ids) and client.take_missed_screens()
    assert set(client.fetch_screen_recordings(ids)) == {"call-1"} and not client.take_missed_screens()


def test_a_server_that_cuts_bulk_responses_is_found_out_whatever_a_smaller_query_has_shown() -> None:
    """A response of the same length was complete by chance before."""

    class CuttingSession(ScreenSession):
        def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
            head, is_bulk, text = target.partition("?ids=")
            ids = [one for one in text.split(",") if not one.startswith("none")][:50]
            if head.rpartition("/")[2].startswith("none"):
                raise NotFound("HTTP 404", 404)
            return super()._send_and_read(method, f"{head}?ids={','.join(ids)}" if is_bulk else target)

    # A bad recording divides a query: its parts together return more than one response does.
    client = RwsClient(CuttingSession([1], ServiceFailed("HTTP 500")), "c")
    client.fetch_screen_recordings([f"{'none' if number % 4 == 0 else 'call'}-{number}" for number in range(100)])
    ids = [f"call-{number}" for number in range(100, 200)]
    assert set(client.fetch_screen_recordings(ids)) == set(ids)
    client = RwsClient(CuttingSession((), ServiceFailed("unused")), "c")
    client.fetch_screen_recordings([f"{'call' if number < 50 else 'none'}-{number}" for number in range(100)])
    # The one that is left out is not among those that are read one by one, because they are missing.
    ids = [*(f"call-{number}" for number in range(50)), "none-0", "call-50", *(f"none-{number}" for number in range(1, 49))]
    assert set(client.fetch_screen_recordings(ids)) >= {f"call-{number}" for number in range(51)}
    wanted = {f"call-{number}" for number in range(100)}
    assert set(client.fetch_screen_recordings(sorted(wanted))) == wanted
