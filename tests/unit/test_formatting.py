"""Times and texts of the status page."""

from __future__ import annotations

import pytest

from muxer.monitoring import pseudonyms
from muxer.status.formatting import (
    format_ago,
    format_datetime,
    format_exact,
    format_megabytes,
    format_position,
    format_span,
    redact,
    single_line,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3540, "59 min"), (3599, "1 h")),
        *((12000, "3 h 20 min"), (86399, "1 d"), (187200, "2 d 4 h"), (-5, "0 s")),
    ],
)
def test_spans_have_one_or_two_units(seconds: float, words: str) -> None:
    assert format_span(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "digits", "words"),
    [
        *((0, 0, "0:00"), (65, 0, "1:05"), (3723, 0, "1:02:03"), (-3, 0, "−0:03")),
        *((-0.01, 1, "0:00.0"), (59.96, 1, "1:00.0"), (12.34, 1, "0:12.3"), (3599.99, 1, "1:00:00.0")),
    ],
)
def test_positions_are_those_of_players(seconds: float, digits: int, words: str) -> None:
    assert format_position(seconds, digits) == words


def test_times_are_shown_in_utc_and_relative_to_now() -> None:
    assert format_datetime(0) == "1970-01-01 00:00:00 UTC"
    assert (format_ago(40, 100), format_ago(160, 100), format_ago(100, 100.4)) == ("1 min ago", "in 1 min", "just now")


def test_lengths_are_exact() -> None:
    formatted = [format_exact(value) for value in (0, 7.46, 59.96, 90, 3599.6)]
    assert formatted == ["0.0 s", "7.5 s", "1:00 min", "1:30 min", "1:00:00 h"]


def test_format_of_sizes() -> None:
    formatted = [format_megabytes(value) for value in (0, 999, 1500, 2_340_000, 5e9)]
    assert formatted == ["0 bytes", "999 bytes", "1.5 kB", "2.3 MB", "5.0 GB"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("a\x00b\x1b[31mc", "a\ufffdb\ufffd[31mc"),
        ("right\u202eleft\u2066", "right\ufffdleft\ufffd"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
        ("two\r\nlines\tand  more", "two lines and more"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("Größe 通話", "Größe 通話"),
    ],
)
def test_texts_are_one_line_without_control_characters(words: str, shown: str) -> None:
    assert single_line(words) == shown


@pytest.mark.parametrize("size", [81, 320, 321, 10_000])
def test_long_texts_are_truncated(size: int) -> None:
    cut = single_line("x" * size)
    assert len(cut) <= 80
    assert "…" in cut


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("http://dav:80/calls/+49301234567.mp3?x=1 is not there", "http://dav:80/… is not there"),
        ("screen +49 30 1234567 is empty", "screen (a number) is empty"),
        ("call-0049301234567-a is broken", "(a name) is broken"),
        ("4711.mp4.bin: no video stream", "(a media file): no video stream"),
        ("ALICE has no rights", "(the agent) has no rights"),
        ("it has 123456789 bytes, and 5000000 MB are free", "it has 123456789 bytes, and 5000000 MB are free"),
        ("connection to 10.11.12.13:8443 refused", "connection to 10.11.12.13:8443 refused"),
        ("HTTP 503, statusCode 4", "HTTP 503, statusCode 4"),
    ],
)
def test_reasons_name_neither_caller_nor_agent(reason: str, shown: str) -> None:
    assert redact(reason, "alice") == shown


def test_labels_of_agents_do_not_contain_names() -> None:
    assert pseudonyms.agent_pseudonym("alice") == pseudonyms.agent_pseudonym("alice") != pseudonyms.agent_pseudonym("bob")
    assert len(pseudonyms.agent_pseudonym("alice")) == pseudonyms.LABEL_BYTES
    assert pseudonyms.agent_pseudonym("") == ""


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("PUT http://192.168.100.200:8080/calls/+4930.mp3: HTTP 507", "PUT http://192.168.100.200:8080/… HTTP 507"),
        ("http://alice-4930123@10.20.30.40/x failed", "http://10.20.30.40/… failed"),
        ("host='192.168.100.200', port=8443", "host='192.168.100.200', port=8443"),
        ("http://[fd00:1234:5678::1]:8080/x failed", "http://[fd00:1234:5678::1]:8080/… failed"),
        ("https://dav-2026-11-30.bank.example/x", "https://dav-2026-11-30.bank.example/…"),
        ("http://4930123456789/x", "(a name)"),
        ("call-192.168.100.200-49301234567", "(a name)"),
    ],
)
def test_reasons_name_servers_that_are_addresses(reason: str, shown: str) -> None:
    assert redact(reason) == shown


def test_reasons_keep_known_names_as_whole_words() -> None:
    known = ("4f1c2b7e-1111-2222",)
    assert redact("RWS GET /contact-centers/4f1c2b7e-1111-2222/x", known=known).endswith("/4f1c2b7e-1111-2222/x")
    assert redact("call 4f1c2b7e-1111-2222-a is odd", known=known) == "call (a name) is odd"
