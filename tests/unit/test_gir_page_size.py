"""Large pages: what RWS does not return is asked for in smaller pages, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muxer.errors import AccessDenied, MuxerError, RequestRejected, ServiceUnavailable
from muxer.gir.deviations import Deviation, DeviationLog
from muxer.gir.links import query_parameter, with_parameters
from muxer.gir.listing import RecordingListing
from muxer.gir.page_size import MAX_LIMIT
from muxer.gir.responses import HttpResponse, response_error, too_long_error
from tests.support.tiers import spread_variants
from tests.unit.test_gir_listing import FakeListing, JsonResponse, call_ids, listing_url, spaced_calls

Refusal = Callable[[int, int], MuxerError | None]


def timeout() -> MuxerError:
    error = ServiceUnavailable("no response within the time limit")
    error.has_timed_out = True
    return error


def too_large() -> MuxerError:
    return response_error(HttpResponse("GET", 413, {}, b""), 0, "")


def bad_request() -> MuxerError:
    return response_error(HttpResponse("GET", 400, {}, b""), 2, "limit")


class LinkedListing(FakeListing):
    """Pages with links by offset. `refuse` returns the error for a limit and an offset."""

    def __init__(self, calls: list[dict[str, str]], refuse: Refusal = lambda *_: None) -> None:
        super().__init__(calls)
        self._refuse = refuse

    @property
    def first_limits(self) -> list[int]:
        """The limits of the first pages of all queries so far."""
        return [int(query_parameter(one, "limit")) for one in self.requests if not query_parameter(one, "offset")]

    def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
        offset = int(query_parameter(link, "offset") or 0)
        if (error := self._refuse(max_calls, offset)) is not None:
            raise error
        end = offset + max_calls
        links = {"next": with_parameters(link, offset=end)} if end < len(found) else {}
        return {"recordings": found[offset:end], "paging": links}


def read_all(listing: RecordingListing, limit: int) -> list[str]:
    return sorted(raw["id"] for page in listing.read_pages(listing_url(limit)) for raw in page)  # type: ignore[index]


@pytest.mark.parametrize("error", [too_large, bad_request, lambda: too_long_error("GET")], ids=["413", "400", "too long"])
def test_a_page_that_rws_refuses_is_halved_for_the_rest_of_the_run(
    error: Callable[[], MuxerError], caplog: pytest.LogCaptureFixture
) -> None:
    calls, deviations = spaced_calls(700), DeviationLog()
    server = LinkedListing(calls, lambda limit, _: error() if limit > 300 else None)
    listing = RecordingListing(server, deviations)
    for _ in range(2):
        assert read_all(listing, 1000) == call_ids(calls)
    assert server.first_limits == [1000, 500, 250, 250]
    assert deviations.kind_counts[Deviation.SMALLER_PAGES] == 1
    (warned,) = [one.message for one in caplog.records if "does not return 1000 call recordings" in one.message]
    assert "asks for 250" in warned


def test_a_later_page_that_is_too_long_starts_the_query_again() -> None:
    calls = spaced_calls(700)
    server = LinkedListing(calls, lambda limit, offset: too_long_error("GET") if limit == 200 and offset == 400 else None)
    assert read_all(RecordingListing(server, DeviationLog()), 200) == call_ids(calls)
    assert server.first_limits == [200, 100]


def test_a_page_below_the_default_is_halved_only_when_it_is_too_long() -> None:
    calls = spaced_calls(30)
    server = LinkedListing(calls, lambda limit, _: too_long_error("GET") if limit > 5 else None)
    assert read_all(RecordingListing(server, DeviationLog()), 20) == call_ids(calls)
    assert server.first_limits == [20, 10, 5]
    for error in (bad_request(), timeout()):
        server = LinkedListing(calls, lambda *_, error=error: error)
        with pytest.raises(type(error)):
            read_all(RecordingListing(server, DeviationLog()), 20)
        assert server.first_limits == [20]


def test_a_page_that_comes_too_late_is_halved_when_a_small_one_comes_in_time() -> None:
    calls = spaced_calls(700)
    server = LinkedListing(calls, lambda limit, _: timeout() if limit > 300 else None)
    listing = RecordingListing(server, DeviationLog())
    for _ in range(3):
        assert read_all(listing, 1000) == call_ids(calls)
    assert server.first_limits == [1000, 100, 500, 100, 250]


@pytest.mark.parametrize("error", [timeout, bad_request])
def test_an_outage_or_a_wrong_query_does_not_change_the_size(error: Callable[[], MuxerError]) -> None:
    calls, is_out = spaced_calls(700), [True]
    server = LinkedListing(calls, lambda *_: error() if is_out[0] else None)
    listing = RecordingListing(server, DeviationLog())
    with pytest.raises((ServiceUnavailable, RequestRejected)):
        read_all(listing, 1000)
    is_out[0] = False
    server.requests.clear()
    assert read_all(listing, 1000) == call_ids(calls) and server.first_limits[0] == 1000


@pytest.mark.parametrize("error", [ServiceUnavailable("503"), AccessDenied("no"), RequestRejected("501", 501)])
def test_other_errors_are_no_reason_to_ask_for_less(error: MuxerError) -> None:
    server = LinkedListing(spaced_calls(10), lambda *_: error)
    with pytest.raises(type(error)):
        read_all(RecordingListing(server, DeviationLog()), 1000)
    assert server.first_limits == [1000]


def test_no_more_is_asked_for_than_elasticsearch_allows() -> None:
    server = LinkedListing(spaced_calls(10))
    read_all(RecordingListing(server, DeviationLog()), 50_000)
    assert server.first_limits == [MAX_LIMIT]


@pytest.mark.parametrize("cap", spread_variants([101, 100, 120, 768, 300, 999], 3))
def test_a_server_with_another_limit_and_without_links_loses_nothing(cap: int) -> None:
    """Such a page is shorter than what was asked for, and no usual limit of a server."""

    class CappedListing(FakeListing):
        def build_page(self, link: str, found: list[dict[str, str]], max_calls: int) -> JsonResponse:
            return {"recordings": found[:max_calls]}

    calls = spaced_calls(1000, every=30, seconds=25)
    listing = RecordingListing(CappedListing(calls, cap), DeviationLog())
    assert read_all(listing, 1000) == call_ids(calls)


def test_a_large_page_without_a_link_is_the_end_where_small_pages_have_links() -> None:
    """What small pages look like is asked once."""
    calls = spaced_calls(400)
    server = LinkedListing(calls)
    listing = RecordingListing(server, DeviationLog())
    for _ in range(3):
        assert read_all(listing, 1000) == call_ids(calls)
    assert server.first_limits == [1000, 50, 1000, 1000] and len(server.requests) == 5
