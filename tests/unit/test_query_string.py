"""Queries for call recordings as sent: encoding, the guide's misprint, versions, windows (gir-api, sections 2 and 3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.config.query_string import (
    BUILT_IN_EXTRA_QUERY,
    BUILT_IN_EXTRA_QUERY_SINCE,
    encode_query,
    parse_version,
    repair_extra_query,
)
from muxer.polling.window import migration_query, window_query

# The characters that RFC 3986 allows in a query.
QUERY_CHARACTERS = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/?%")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("userName=Alice AND Amber", "userName=Alice%20AND%20Amber"),
        ("userData=tom jerry", "userData=tom%20jerry"),
        ("userData=tom*", "userData=tom*"),
        ("callerPhoneNumber=+4989123", "callerPhoneNumber=%2B4989123"),
        ("userName=Müller", "userName=M%C3%BCller"),
        ("userData=100%", "userData=100%25"),
        ("userData=a%26b", "userData=a%26b"),
        ("userData=a%20b", "userData=a%20b"),
        ("userData=a=b", "userData=a%3Db"),
        ('userData="x"', "userData=%22x%22"),
        ("userData=a#b", "userData=a%23b"),
        ("userData=a/b?c", "userData=a%2Fb%3Fc"),
        ("?userData=a", "userData=a"),
        ("&userData=a&&userName=b&", "userData=a&userName=b"),
        ("userData=a & userName=b", "userData=a%20&userName=b"),
        ("", ""),
    ],
)
def test_a_query_is_encoded_for_the_wire(written: str, sent: str) -> None:
    assert encode_query(written) == sent


def test_a_quoted_byte_that_is_not_utf_8_is_sent_as_written() -> None:
    assert encode_query("userData=M%FCller") == "userData=M%FCller"


NAMES = st.sampled_from(["userData", "userName", "callerPhoneNumber", "dialedPhoneNumber"])
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="&%"), max_size=20)


@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=5))
def test_the_server_reads_the_values_that_were_written(pairs: list[tuple[str, str]]) -> None:
    sent = encode_query("&".join(f"{name}={value}" for name, value in pairs))
    assert parse_qsl(sent, keep_blank_values=True) == pairs


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_encoded_as_valid_query_characters(text: str) -> None:
    assert set(encode_query(text)) <= QUERY_CHARACTERS


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="&=")))
def test_encoded_text_is_not_encoded_again(value: str) -> None:
    once = encode_query(f"userData={value}")
    assert encode_query(once) == once


def test_the_built_in_query_is_the_correct_text_of_the_misprint() -> None:
    assert BUILT_IN_EXTRA_QUERY == "userData=SRSScreenRecordingStateStarted&scanAndScroll=true"
    assert encode_query(BUILT_IN_EXTRA_QUERY) == BUILT_IN_EXTRA_QUERY
    assert BUILT_IN_EXTRA_QUERY_SINCE == (8, 5, 201, 14)


@pytest.mark.parametrize("sign", [">", "\u227b", "&gt;", "&sc;"])
def test_the_printed_form_of_the_guide_is_repaired(sign: str) -> None:
    assert repair_extra_query(f"userData=SRSScreenRecordingStateStarted{sign}anAndScroll=true") == BUILT_IN_EXTRA_QUERY


@pytest.mark.parametrize("query", [BUILT_IN_EXTRA_QUERY, "userData=a>b", "userData=x>anAndScrolling", ""])
def test_a_query_without_the_misprint_stays_as_it_is(query: str) -> None:
    assert repair_extra_query(query) == query


@pytest.mark.parametrize(
    ("text", "version"),
    [("8.5.205.40", (8, 5, 205, 40)), (" 8.5.201.9\n", (8, 5, 201, 9)), ("08.05.201.014", (8, 5, 201, 14))],
)
def test_a_version_is_four_integers(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "8.5.205", "8.5.205.40.1", "8.5.x.1", "v8.5.205.40", "-8.5.205.40", "8,5,205,40"])
def test_a_malformed_version_is_ignored(text: str) -> None:
    assert parse_version(text) is None


def test_versions_are_compared_as_integers_and_not_as_text() -> None:
    older = parse_version("8.5.201.9")
    assert older is not None
    assert older < BUILT_IN_EXTRA_QUERY_SINCE


NOW = datetime(2024, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)


def test_the_window_is_sent_in_epoch_milliseconds() -> None:
    sent = dict(parse_qsl(window_query(NOW, 720, 5, 100, "")))
    now = 1704196800123
    assert sent == {"startTime": str(now - 720 * 60_000), "endTime": str(now - 5 * 60_000), "limit": "100"}


def test_fractions_of_a_minute_count() -> None:
    assert f"endTime={1704196800123 - 30_000}" in window_query(NOW, 1.5, 0.5, 100, "")


def test_the_window_does_not_depend_on_the_time_zone() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert window_query(elsewhere, 10, 0, 1, "") == window_query(NOW, 10, 0, 1, "")


def test_the_extra_query_follows_the_window_encoded() -> None:
    sent = window_query(NOW, 10, 0, 7, "userName=Alice AND Amber&scanAndScroll=true")
    assert sent.endswith("&limit=7&userName=Alice%20AND%20Amber&scanAndScroll=true")


def test_without_an_extra_query_nothing_is_appended() -> None:
    assert window_query(NOW, 10, 0, 7, "").endswith("limit=7")


def test_a_migration_sends_its_query_and_the_limit_instead_of_the_window() -> None:
    assert migration_query("userData=tom jerry", 50) == "userData=tom%20jerry&limit=50"


def test_a_limit_in_the_query_of_a_migration_is_kept() -> None:
    assert parse_qsl(migration_query("limit=5&userData=a", 50)) == [("limit", "5"), ("userData", "a")]


@pytest.mark.parametrize("query", ["userData=limit=5", "userData=limit%3D5", "rateLimit=3&softlimit=5"])
def test_only_the_parameter_limit_replaces_the_limit(query: str) -> None:
    assert dict(parse_qsl(migration_query(query, 50)))["limit"] == "50"
