"""A query is read completely however the server pages, or the listing is reported as incomplete (gir-api, section 3)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.errors import (
    Forbidden,
    MuxerError,
    NotFound,
    QueryIncomplete,
    RequestRejected,
    ServiceFailed,
    ServiceUnavailable,
)
from muxer.gir.deviations import Deviation, DeviationLog
from muxer.gir.links import is_scan_query, query_parameter
from muxer.gir.listing import RecordingListing
from muxer.gir.models import format_time, to_microseconds
from muxer.system.iso_time import parse_time

EPOCH = datetime(2024, 1, 2, tzinfo=UTC)
START_MS = to_microseconds(EPOCH) // 1000
HOURS = 12
MAX_REQUESTS = 4000
JsonResponse = Mapping[str, Any]


def call_json(number: int, second: int, seconds: int) -> dict[str, str]:
    start = EPOCH + timedelta(seconds=second)
    return {"id": f"C{number}", "startTime": format_time(start), "stopTime": format_time(start + timedelta(seconds=seconds))}


def time_ms(text: str) -> int:
    parsed = parse_time(text)
    assert parsed is not None
    return to_microseconds(parsed) // 1000


class FakeListing:
    """Find calls as RWS does, in its own order; `build_page` creates the response."""

    def __init__(self, calls: list[dict[str, str]], cap: int = 10**6) -> None:
        self.calls, self.cap = calls, cap
        self.requests: list[str] = []

    def __call__(self, link: str) -> JsonResponse:
        self.requests.append(link)
        assert len(self.requests) < MAX_REQUESTS, "the query never ends"
        start, end = int(query_parameter(link, "startTime") or 0), int(query_parameter(link, "endTime") or 10**15)
        found = [call for call in self.calls if start <= time_ms(call["startTime"]) and time_ms(call["stopTime"]) <= end]
        found.sort(key=lambda item: hashlib.sha256(item["id"].encode()).digest())
        return self.build_page(link, found, min(int(query_parameter(link, "limit") or 100), self.cap))

    def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
        return {"statusCode": 0, "recordings": found[:max_calls], "total": len(found)}


def listing_url(limit: int, extra: str = "") -> str:
    return f"recordings?startTime={START_MS}&endTime={START_MS + HOURS * 3_600_000}&limit={limit}{extra}"


def read_ids(server: Callable[[str], JsonResponse], first: str, deviations: DeviationLog | None = None) -> list[str]:
    listing = RecordingListing(server, deviations or DeviationLog())
    return [raw["id"] for page in listing.read_pages(first) for raw in page]  # type: ignore[index]


def call_ids(calls: list[dict[str, str]]) -> list[str]:
    return sorted(call["id"] for call in calls)


def spaced_calls(count: int, every: int = 60, seconds: int = 45) -> list[dict[str, str]]:
    return [call_json(number, number * every, seconds) for number in range(count)]


@pytest.mark.parametrize("limit", [1, 2, 7, 10, 100, 250])
@pytest.mark.parametrize("count", [0, 1, 6, 7, 99, 100, 101, 350])
def test_pages_without_links_lose_nothing(limit: int, count: int) -> None:
    calls, deviations = spaced_calls(count), DeviationLog()
    assert sorted(read_ids(FakeListing(calls), listing_url(limit), deviations)) == call_ids(calls)
    assert bool(deviations.first_texts) == (count > limit)


@pytest.mark.parametrize("cap", [50, 100, 200])
def test_a_server_with_its_own_limit_loses_nothing(cap: int) -> None:
    calls = spaced_calls(320)
    assert sorted(read_ids(FakeListing(calls, cap), listing_url(250))) == call_ids(calls)


@given(
    st.lists(
        st.tuples(st.integers(0, HOURS * 3600 - 700), st.integers(1, 600)), max_size=120, unique_by=lambda item: item[0]
    ),
    st.integers(1, 120),
    st.booleans(),
)
def test_every_call_is_read_exactly_once_or_the_listing_is_reported_as_incomplete(
    spans: list[tuple[int, int]], limit: int, capped: bool
) -> None:
    calls = [call_json(number, *span) for number, span in enumerate(spans)]
    found: list[str] = []
    listing = RecordingListing(FakeListing(calls, 50 if capped else 10**6), DeviationLog())
    try:
        for page in listing.read_pages(listing_url(limit)):
            found += [raw["id"] for raw in page]  # type: ignore[index]
    except QueryIncomplete:
        assert len(found) == len(set(found))
    else:
        missed = set(call_ids(calls)) - set(found)
        assert len(found) == len(set(found)) and not missed


def test_calls_that_are_too_dense_for_time_windows_are_reported() -> None:
    calls = [call_json(number, 100, 30) for number in range(50)]
    with pytest.raises(QueryIncomplete, match=r"50|10") as caught:
        read_ids(FakeListing(calls), listing_url(10))
    assert "statusCode, recordings, total" in str(caught.value) and "[advanced] pagination" in str(caught.value)


def test_long_calls_that_may_be_hidden_are_reported() -> None:
    calls = [*spaced_calls(200, every=30), *(call_json(1000 + number, number * 60, 3 * 3600) for number in range(30))]
    with pytest.raises(QueryIncomplete):
        read_ids(FakeListing(calls), listing_url(10))


def test_a_server_that_ignores_times_and_links_ends_soon() -> None:
    class IgnoringServer(FakeListing):
        def __call__(self, link: str) -> JsonResponse:
            self.requests.append(link)
            return {"recordings": self.calls[:10]}

    server = IgnoringServer(spaced_calls(50))
    with pytest.raises(QueryIncomplete):
        read_ids(server, listing_url(10))
    assert len(server.requests) < 100


class LinkingServer(FakeListing):
    """A server whose links contain offsets; it refuses offsets from `refused` on."""

    refused = 10**6
    ignores_offset = False

    def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
        offset = int(query_parameter(link, "offset") or 0)
        if offset >= self.refused:
            raise ServiceFailed("HTTP 500")
        shown = 0 if self.ignores_offset else offset
        page = {"recordings": found[shown : shown + max_calls]}
        more = offset + max_calls < len(found)
        return page | ({"next": f"{link.partition('&offset')[0]}&offset={offset + max_calls}"} if more else {})


def test_known_links_are_followed_and_nothing_else_is_requested() -> None:
    server = LinkingServer(spaced_calls(100))
    assert sorted(read_ids(server, listing_url(50))) == call_ids(server.calls) and len(server.requests) == 2


def test_a_full_page_without_a_link_is_the_end_after_links_were_followed() -> None:
    server = LinkingServer(spaced_calls(100))
    listing = RecordingListing(server, DeviationLog())
    list(listing.read_pages(listing_url(50)))
    server.requests, server.calls = [], spaced_calls(50)
    assert sum(map(len, listing.read_pages(listing_url(50)))) == 50 and len(server.requests) == 1


def test_links_that_always_lead_to_the_first_page_lose_nothing() -> None:
    server = LinkingServer(spaced_calls(300))
    server.ignores_offset = True
    assert sorted(read_ids(server, listing_url(10))) == call_ids(server.calls)


def test_a_refused_page_is_first_retried_and_then_replaced_by_time_windows() -> None:
    server, deviations = LinkingServer(spaced_calls(300)), DeviationLog()
    server.refused = 100
    listing = RecordingListing(server, deviations)
    with pytest.raises(ServiceFailed, match=r"page 11 of the query"):
        list(listing.read_pages(listing_url(10)))
    assert not deviations.first_texts
    found = [raw["id"] for page in listing.read_pages(listing_url(10)) for raw in page]  # type: ignore[index]
    assert sorted(found) == call_ids(server.calls)
    assert "page 11" in deviations.first_texts[Deviation.PAGE_REFUSED]


def test_a_long_call_on_the_first_page_shows_that_time_windows_may_miss_others() -> None:
    server = LinkingServer(spaced_calls(280))
    in_order = [str(raw["id"]) for raw in server(listing_url(280))["recordings"]]
    # Both last longer than the longest time window, half of the query; only the first is found before pages are refused.
    long, seconds = {in_order[0], in_order[-1]}, 7 * 3600
    server.calls = [call_json(number, number * 60, seconds if f"C{number}" in long else 45) for number in range(280)]
    server.refused = 100
    listing = RecordingListing(server, DeviationLog())
    with pytest.raises(ServiceFailed):
        list(listing.read_pages(listing_url(10)))
    with pytest.raises(QueryIncomplete):
        list(listing.read_pages(listing_url(10)))


def test_shorter_queries_in_between_do_not_hide_a_refused_page() -> None:
    """A poll reads the newest calls first: those queries have several pages, and work."""
    server, deviations = LinkingServer(spaced_calls(300)), DeviationLog()
    server.refused = 100
    listing = RecordingListing(server, deviations)
    for is_first in (True, False):
        newest = f"recordings?startTime={START_MS}&endTime={START_MS + 3_000_000}&limit=10"
        assert len([raw for page in listing.read_pages(newest) for raw in page]) > 20
        if is_first:
            with pytest.raises(ServiceFailed, match=r"page 11 of the query"):
                list(listing.read_pages(listing_url(10)))
    found = [raw["id"] for page in listing.read_pages(listing_url(10)) for raw in page]  # type: ignore[index]
    assert sorted(found) == call_ids(server.calls)


def test_a_page_that_fails_in_every_window_is_reported() -> None:
    server = LinkingServer([call_json(number, 100, 30) for number in range(50)])
    server.refused = 10
    listing = RecordingListing(server, DeviationLog())
    with pytest.raises(ServiceFailed):
        list(listing.read_pages(listing_url(10)))
    with pytest.raises(QueryIncomplete, match="refuses page 2"):
        list(listing.read_pages(listing_url(10)))


@pytest.mark.parametrize("error", [RequestRejected("HTTP 400, too large", 400), Forbidden("HTTP 403"), NotFound("no", 404)])
def test_a_permanently_refused_page_is_replaced_by_time_windows(error: MuxerError) -> None:
    class RefusingServer(LinkingServer):
        def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
            if int(query_parameter(link, "offset") or 0) >= 100:
                raise copy.copy(error)
            return super().build_page(link, found, max_calls)

    server, deviations = RefusingServer(spaced_calls(300)), DeviationLog()
    listing = RecordingListing(server, deviations)
    if isinstance(error, NotFound):  # The query is restarted first.
        with pytest.raises(MuxerError, match="page 11 of the query"):
            list(listing.read_pages(listing_url(10)))
    assert sorted(raw["id"] for page in listing.read_pages(listing_url(10)) for raw in page) == call_ids(server.calls)  # type: ignore[index]
    assert (
        "page 11" in deviations.first_texts[Deviation.PAGE_REFUSED]
        and str(error) in deviations.first_texts[Deviation.PAGE_REFUSED]
    )


def test_a_server_that_sends_retry_after_has_not_refused_the_page() -> None:
    class ThrottlingServer(LinkingServer):
        def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
            if len(self.requests) % 3 == 0:
                raise ServiceUnavailable("HTTP 429", 60)
            return super().build_page(link, found, max_calls)

    server, deviations = ThrottlingServer(spaced_calls(300)), DeviationLog()
    listing = RecordingListing(server, deviations)
    for _ in range(3):
        with pytest.raises(ServiceUnavailable, match="page 3 of the query: HTTP 429"):
            list(listing.read_pages(listing_url(10)))
    assert not deviations.first_texts


@pytest.mark.parametrize("error", [RequestRejected("HTTP 400, limit", 400), ServiceFailed("HTTP 500")])
@pytest.mark.parametrize("max_calls", [50, 60, 100])
def test_a_server_that_refuses_a_larger_limit_loses_nothing(max_calls: int, error: MuxerError) -> None:
    class StrictServer(FakeListing):
        def __call__(self, link: str) -> JsonResponse:
            if int(query_parameter(link, "limit")) > max_calls:
                self.requests.append(link)
                raise error
            return super().__call__(link)

    server = StrictServer(spaced_calls(250))
    assert sorted(read_ids(server, listing_url(max_calls))) == call_ids(server.calls)


@pytest.mark.parametrize("links", ["each other", "itself"])
def test_links_that_lead_back_lose_nothing_in_few_requests(links: str) -> None:
    class CirclingServer(FakeListing):
        def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
            offset = int(query_parameter(link, "offset") or 0)
            following = 0 if offset and links == "each other" else max_calls
            address = f"{link.partition('&offset')[0]}&offset={following}"
            return {"recordings": found[offset : offset + max_calls], "next": address}

    server, deviations = CirclingServer(spaced_calls(250)), DeviationLog()
    assert sorted(read_ids(server, listing_url(100), deviations)) == call_ids(server.calls)
    assert len(server.requests) < 50 and "pages that were read before" in deviations.first_texts[Deviation.NO_LINK]


@pytest.mark.parametrize("cap", [10, 20, 37])
def test_a_page_that_is_shorter_than_the_total_is_not_the_end(cap: int) -> None:
    calls = spaced_calls(150)
    assert sorted(read_ids(FakeListing(calls, cap), listing_url(250))) == call_ids(calls)


@pytest.mark.parametrize(
    "response",
    [
        {"statusCode": 0, "items": [{"id": "C1"}]},
        {"recordings": {"C1": {"id": "C1"}}},
        {"data": {"recordings": [{"id": "C1"}]}},
    ],
)
def test_recordings_in_another_form_are_reported(response: JsonResponse) -> None:
    with pytest.raises(QueryIncomplete, match=f"keys of the response: {', '.join(response)}"):
        read_ids(lambda _: response, listing_url(10))


@pytest.mark.parametrize(
    "response", [{}, {"statusCode": 0}, {"recordings": None}, {"statusCode": 0, "paging": {"total": 0}}]
)
def test_an_empty_response_is_an_empty_page(response: JsonResponse) -> None:
    assert read_ids(lambda _: response, listing_url(10)) == []


class ScanlessServer(LinkingServer):
    """A server without scan and scroll, which returns an empty page for them."""

    def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
        return {"recordings": [], "cursor": "x"} if is_scan_query(link) else super().build_page(link, found, max_calls)


def test_an_empty_scan_page_is_followed_by_the_query_without_scan_and_that_is_remembered() -> None:
    server, deviations = ScanlessServer(spaced_calls(95)), DeviationLog()
    listing = RecordingListing(server, deviations)
    for _ in range(2):
        assert sum(map(len, listing.read_pages(listing_url(50, "&scanAndScroll=true")))) == 95
    assert [is_scan_query(link) for link in server.requests] == [True, False, False, False, False]
    assert "recordings, cursor" in deviations.first_texts[Deviation.EMPTY_SCAN]
    assert deviations.kind_counts[Deviation.EMPTY_SCAN] == 1


class PromisingServer(ScanlessServer):
    """A server that responds to a scan with empty pages that have links."""

    def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
        page = super().build_page(link, found, max_calls)
        return {**page, "next": f"{link}&again"} if is_scan_query(link) else page


def test_a_scan_whose_links_lead_to_empty_pages_only_is_followed_by_the_query_without_scan() -> None:
    server, deviations = PromisingServer(spaced_calls(95)), DeviationLog()
    assert sorted(read_ids(server, listing_url(50, "&scanAndScroll=true"), deviations)) == call_ids(server.calls)
    assert "only empty pages" in deviations.first_texts[Deviation.EMPTY_SCAN] and len(server.requests) < 15


def test_a_window_without_calls_is_not_a_deviation() -> None:
    server, deviations = ScanlessServer([]), DeviationLog()
    assert read_ids(server, listing_url(50, "&scanAndScroll=true"), deviations) == [] and not deviations.first_texts


@pytest.mark.parametrize("first", ["recordings?userName=a&limit=10", f"recordings?startTime={START_MS}&limit=10"])
def test_a_query_without_times_is_halved_up_to_now(first: str) -> None:
    calls = spaced_calls(35)
    assert sorted(read_ids(FakeListing(calls), first)) == call_ids(calls)


def test_a_query_whose_times_cannot_be_halved_is_reported() -> None:
    with pytest.raises(QueryIncomplete, match="startTime and endTime"):
        read_ids(FakeListing(spaced_calls(35)), "recordings?startTime=0&endTime=1e15&limit=10".replace("1e15", "9" * 20))


def test_a_deviation_is_logged_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    deviations = DeviationLog()
    listing = RecordingListing(FakeListing(spaced_calls(30)), deviations)
    for _ in range(3):
        list(listing.read_pages(listing_url(10)))
    assert deviations.kind_counts[Deviation.NO_LINK] == 3
    assert len([record for record in caplog.records if "no link to the next page" in record.message]) == 1
