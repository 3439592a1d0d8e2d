"""The pages of a query: three forms of links, scan and scroll, repetitions, expiry, guaranteed end (gir-api, section 3)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.errors import AccessDenied, NotFound, ServiceUnavailable
from muxer.gir.paging import PageWalk

Page = dict[str, Any]
MAX_REQUESTS = 3000


def build_page(ids: Iterable[str] = (), link: str | None = None) -> Page:
    response: Page = {"statusCode": 0, "recordings": [{"id": recording_id} for recording_id in ids]}
    return response | ({"paging": {"next": link}} if link else {})


class PagingServer:
    """A server with a list of responses per link; the last one is repeated."""

    def __init__(self, max_requests: int = MAX_REQUESTS, **responses: Page | Exception | list[Page | Exception]) -> None:
        self._max_requests = max_requests
        self._responses = {link: one if isinstance(one, list) else [one] for link, one in responses.items()}
        self.requests: list[str] = []

    def __call__(self, link: str) -> Page:
        self.requests.append(link)
        assert len(self.requests) < self._max_requests, "the query never ends"
        responses = self._responses[link]
        response = responses.pop(0) if len(responses) > 1 else responses[0]
        if isinstance(response, Exception):
            raise response
        return response


def read_ids(fetch: Callable[[str], Page]) -> list[str]:
    return [raw["id"] for found in PageWalk(fetch, "first") for raw in found]  # type: ignore[index]


GONE_ERROR = NotFound("gone", 404, 6)


@pytest.mark.parametrize("form", [{"paging": {"next": "two"}}, {"nextUri": "two"}, {"next": "two"}])
def test_the_next_link_is_read_in_three_forms(form: Page) -> None:
    server = PagingServer(first=build_page("ab") | form, two=build_page("cd"))
    assert read_ids(server) == ["a", "b", "c", "d"]
    assert server.requests == ["first", "two"]


@pytest.mark.parametrize("end", [{}, {"paging": {}}, {"paging": {"next": None}}, {"paging": {"next": ""}}, {"paging": None}])
def test_no_link_is_the_end(end: Page) -> None:
    assert read_ids(PagingServer(first=build_page("a") | end)) == ["a"]


def test_an_empty_first_page_with_a_link_is_not_the_end() -> None:
    assert read_ids(PagingServer(first=build_page((), "scroll"), scroll=build_page("ab"))) == ["a", "b"]


def test_an_empty_page_in_the_middle_is_not_the_end() -> None:
    server = PagingServer(first=build_page("a", "two"), two=build_page((), "three"), three=build_page("b"))
    assert read_ids(server) == ["a", "b"]


def test_repeated_ids_are_returned_once() -> None:
    server = PagingServer(first=build_page("aab", "two"), two=build_page("bca"))
    assert read_ids(server) == ["a", "b", "c"]


def test_the_same_link_twice_is_the_end() -> None:
    server = PagingServer(first=build_page("a", "two"), two=build_page("b", "two"))
    assert read_ids(server) == ["a", "b"]
    assert len(server.requests) <= 3


def test_a_link_to_the_first_page_is_the_end() -> None:
    assert read_ids(PagingServer(first=build_page("a", "first"))) == ["a"]


def test_a_scroll_that_keeps_its_id_is_read_to_its_end() -> None:
    server = PagingServer(first=build_page((), "s"), s=[build_page("a", "s"), build_page("b", "s"), build_page((), "s")])
    assert read_ids(server) == ["a", "b"]


def test_circular_links_end() -> None:
    server = PagingServer(first=build_page("a", "two"), two=build_page("b", "three"), three=build_page("c", "two"))
    assert read_ids(server) == ["a", "b", "c"]


def test_two_pages_that_link_to_each_other_end_soon_and_may_not_be_all() -> None:
    server = PagingServer(first=build_page("a", "two"), two=build_page("b", "one"), one=build_page("a", "two"))
    pages = PageWalk(server, "first")
    assert [raw["id"] for found in pages for raw in found] == ["a", "b"]  # type: ignore[index]
    assert pages.went_round and len(server.requests) == 4


def test_a_page_that_links_to_itself_may_not_be_the_last_one() -> None:
    pages = PageWalk(PagingServer(first=build_page("a", "two"), two=build_page("b", "two")), "first")
    assert list(pages) and pages.went_round


def test_the_number_of_a_failing_page_is_counted_from_the_restart_of_the_query() -> None:
    pages = PageWalk(PagingServer(first=build_page("a", "two"), two=build_page("b", "three"), three=GONE_ERROR), "first")
    with pytest.raises(ServiceUnavailable, match="gone"):
        list(pages)
    assert pages.number == 2


@pytest.mark.parametrize("found", ["", "ab"])
def test_endless_new_links_without_new_recordings_end(found: str) -> None:
    requests: list[str] = []

    def fetch_page(link: str) -> Page:
        requests.append(link)
        assert len(requests) < MAX_REQUESTS, "the query never ends"
        return build_page(found, f"link-{len(requests)}")

    assert read_ids(fetch_page) == list(found)
    assert len(requests) < 20


def test_an_expired_scroll_is_restarted_once_without_repeating_recordings() -> None:
    server = PagingServer(first=build_page("a", "s"), s=[GONE_ERROR, build_page("b")])
    assert read_ids(server) == ["a", "b"]
    assert server.requests == ["first", "s", "first", "s"]


def test_after_an_expiry_any_number_of_known_pages_is_read_to_reach_the_missing_ones() -> None:
    pages = 1500
    links = ["first", *(f"p{number}" for number in range(1, pages))]
    responses: dict[str, Any] = {
        link: build_page([f"C{number}"], following)
        for number, (link, following) in enumerate(zip(links, [*links[1:], "last"], strict=True))
    }
    found = read_ids(PagingServer(**responses, last=[GONE_ERROR, build_page(["missing"])], max_requests=2 * pages + 10))
    assert len(found) == pages + 1
    assert found[-1] == "missing"


def test_a_scroll_that_expires_while_each_new_page_is_processed_is_read_to_its_end() -> None:
    links = ["first", *(f"p{number}" for number in range(1, 12))]
    pages = {
        link: build_page([f"C{number}"], following)
        for number, (link, following) in enumerate(zip(links, [*links[1:], None], strict=True))
    }
    is_late = False

    def fetch_page(link: str) -> Page:
        nonlocal is_late
        if link == "first":
            is_late = False
        elif is_late:
            raise GONE_ERROR
        return pages[link]

    found = []
    for page in PageWalk(fetch_page, "first"):
        found += page
        is_late = True
    assert found == [one for page in pages.values() for one in page["recordings"]]


def test_a_scroll_that_keeps_expiring_at_a_page_ends_although_each_reading_brings_something() -> None:
    numbers = itertools.count()

    def fetch_page(link: str) -> Page:
        if link == "first":
            return build_page([f"C{next(numbers)}"], "s")
        raise GONE_ERROR

    with pytest.raises(ServiceUnavailable, match="no further"):
        read_ids(fetch_page)
    assert next(numbers) == 4


def test_a_scroll_that_keeps_expiring_without_progress_is_a_transient_error() -> None:
    server = PagingServer(first=build_page("a", "s"), s=GONE_ERROR)
    with pytest.raises(ServiceUnavailable):
        read_ids(server)
    assert len(server.requests) <= 6


def test_recordings_read_before_the_expiry_are_returned() -> None:
    delivered = []
    with pytest.raises(ServiceUnavailable):
        for found in PageWalk(PagingServer(first=build_page("a", "s"), s=GONE_ERROR), "first"):
            delivered += found
    assert delivered == [{"id": "a"}]


def test_not_found_at_the_first_request_is_not_an_expiry() -> None:
    server = PagingServer(first=GONE_ERROR)
    with pytest.raises(NotFound):
        read_ids(server)
    assert server.requests == ["first"]


@pytest.mark.parametrize("error", [ServiceUnavailable("down"), AccessDenied("no")])
def test_another_error_is_passed_on(error: Exception) -> None:
    with pytest.raises(type(error)):
        read_ids(PagingServer(first=build_page("a", "two"), two=error))


@pytest.mark.parametrize("recordings", [None, "x", {}, 7])
def test_recordings_of_another_form_are_an_empty_page(recordings: object) -> None:
    assert read_ids(PagingServer(first={"recordings": recordings, "next": "two"}, two=build_page("a"))) == ["a"]


def test_one_page_is_requested_at_a_time() -> None:
    server = PagingServer(first=build_page("a", "two"), two=build_page("b", "three"), three=build_page("c"))
    pages = iter(PageWalk(server, "first"))
    next(pages)
    assert server.requests == ["first"]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4), min_size=1, max_size=12))
def test_every_id_is_returned_exactly_once_whatever_the_pages_contain(pages: list[list[str]]) -> None:
    links = ["first", *(f"p{number}" for number in range(1, len(pages)))]
    server = PagingServer(
        **{
            link: build_page(found, following)
            for link, found, following in zip(links, pages, [*links[1:], None], strict=True)
        }
    )
    assert sorted(read_ids(server)) == sorted({item for found in pages for item in found})
