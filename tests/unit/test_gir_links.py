"""Links to the next page in every location a server may use (gir-api, section 3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.gir.links import (
    LINK_HEADER,
    describe_keys,
    header_link,
    is_scan_query,
    next_link,
    query_parameter,
    with_parameters,
    without_scan,
)

ASKED_PATH = "api/recordings?startTime=1&limit=2&scanAndScroll=true"
CONTAINERS = ("paging", "links", "_links", "pagination", "")
NAMES = ("next", "nextUri", "nextPage", "nextPageUri")
VALUES: tuple[Any, ...] = ("/two?x=1", {"href": "/two?x=1"}, {"uri": "/two?x=1"}, {"url": "/two?x=1"})


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_link_is_found_in_every_location_and_form(container: str, name: str, value: object) -> None:
    link = {name: value}
    assert next_link({"recordings": [], **({container: link} if container else link)}, ASKED_PATH) == "/two?x=1"


def test_a_list_of_links_is_searched_for_the_next_one() -> None:
    links = [{"rel": "self", "href": "/one"}, {"rel": "next", "href": "/two"}]
    assert next_link({"links": links}, ASKED_PATH) == "/two"


def test_a_link_with_only_a_query_is_relative_to_the_requested_path() -> None:
    assert next_link({"next": "?offset=2"}, ASKED_PATH) == "api/recordings?offset=2"


@pytest.mark.parametrize(
    ("link", "full"),
    [
        ("recordings?offset=2", "api/recordings?offset=2"),
        ("./recordings?offset=2", "api/recordings?offset=2"),
        (" recordings?q=http%3A%2F%2Fa&offset=2 ", "api/recordings?q=http%3A%2F%2Fa&offset=2"),
        ("api/recordings?offset=2", "api/recordings?offset=2"),
        ("/api/recordings?offset=2", "/api/recordings?offset=2"),
        ("//other/api/recordings?offset=2", "//other/api/recordings?offset=2"),
        ("https://other/api/recordings?offset=2", "https://other/api/recordings?offset=2"),
    ],
)
def test_a_relative_link_is_resolved_against_the_requested_path(link: str, full: str) -> None:
    assert next_link({"next": link}, ASKED_PATH) == full


@pytest.mark.parametrize("response", [{"scrollId": "a/b=="}, {"paging": {"scrollId": "a/b=="}}, {"_scroll_id": "a/b=="}])
def test_a_bare_scroll_id_is_added_to_the_first_url(response: dict[str, Any]) -> None:
    assert next_link(response, ASKED_PATH) == f"{ASKED_PATH}&scrollId=a%2Fb%3D%3D"
    assert next_link(response, f"{ASKED_PATH}&scrollId=old") == f"{ASKED_PATH}&scrollId=a%2Fb%3D%3D"


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", " ", "null", "None", "false", "undefined", "#", 7, True, [], {}),
        *({"href": None}, {"other": "/two"}, ["/two"], {"href": {"href": "/two"}}),
    ],
    ids=str,
)
def test_anything_else_is_not_a_link(value: object) -> None:
    assert next_link({"paging": {"next": value}, "next": value, "scrollId": value}, ASKED_PATH) is None


@pytest.mark.parametrize(
    ("value", "link"),
    [
        ('<http://other/two?a=1>; rel="next"', "http://other/two?a=1"),
        ('</one>; rel="prev", </two>; rel="next"', "/two"),
        ("</two>; rel=next", "/two"),
        ('</one>; rel="last"', None),
        ("", None),
        ("rubbish", None),
    ],
)
def test_the_link_header(value: str, link: str | None) -> None:
    assert header_link(value) == link


def test_a_link_in_the_body_takes_precedence_over_the_header() -> None:
    assert next_link({LINK_HEADER: "/header", "next": "/body"}, ASKED_PATH) == "/body"
    assert next_link({LINK_HEADER: "/header"}, ASKED_PATH) == "/header"


KEYS = st.sampled_from([*NAMES, *CONTAINERS, "href", "uri", "scrollId", "rel"])
PLAIN_VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(
    st.recursive(
        PLAIN_VALUES, lambda item: st.lists(item, max_size=3) | st.dictionaries(KEYS, item, max_size=4), max_leaves=12
    )
)
def test_a_link_is_always_a_string(value: object) -> None:
    response = value if isinstance(value, dict) else {"paging": value}
    link = next_link(response, ASKED_PATH)
    assert link is None or (isinstance(link, str) and link.strip())
    describe_keys(response).encode()


def test_the_keys_of_a_response_are_named_with_those_of_its_paging() -> None:
    assert describe_keys({"statusCode": 0, "recordings": [], "paging": {"cursor": 1, "total": 2}}) == (
        "statusCode, recordings, paging {cursor, total}"
    )
    assert describe_keys({}) == "none"


def test_parameters_are_replaced_in_any_case_and_others_stay() -> None:
    assert with_parameters("p?a=%26&STARTTIME=1&limit=2", startTime=5) == "p?a=%26&limit=2&startTime=5"
    assert query_parameter("p?Limit=7", "limit") == "7" and query_parameter("p", "limit") == ""
    assert is_scan_query(ASKED_PATH) and not is_scan_query("p?scanAndScroll=false")
    assert without_scan(ASKED_PATH) == "api/recordings?startTime=1&limit=2"
