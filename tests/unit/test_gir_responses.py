"""What a response of a service means (gir-api, section 1)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.errors import (
    AccessDenied,
    AlreadyExists,
    Forbidden,
    MuxerError,
    NotFound,
    RequestRejected,
    ServiceUnavailable,
)
from muxer.gir.responses import HttpResponse, is_csrf_refusal, parse_response, retry_after


def build_response(status: int, body: object = "", **headers: str) -> HttpResponse:
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body != "" else b""
    return HttpResponse("RWS GET /x", status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def response_error(status: int, code: object = None, **headers: str) -> MuxerError:
    body = "" if code is None else {"statusCode": code, "statusMessage": "because"}
    with pytest.raises(MuxerError) as caught:
        parse_response(build_response(status, body, **headers))
    return caught.value


# The most specific type first.
KINDS = (NotFound, AlreadyExists, Forbidden, AccessDenied, ServiceUnavailable, RequestRejected)


def error_kind(error: MuxerError) -> type[MuxerError]:
    return next(kind for kind in KINDS if isinstance(error, kind))


def test_a_successful_response_returns_its_json() -> None:
    assert parse_response(build_response(200, {"statusCode": 0, "recordings": []})) == {"statusCode": 0, "recordings": []}
    assert parse_response(build_response(201, {"id": "x"})) == {"id": "x"}


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_success_may_be_empty(status: int) -> None:
    assert parse_response(build_response(status)) == {}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 2, RequestRejected),
        (400, 1, RequestRejected),
        (400, 10, RequestRejected),
        (401, None, AccessDenied),
        (401, 20, AccessDenied),
        (403, 3, Forbidden),
        (403, 5, Forbidden),
        (403, None, Forbidden),
        (404, 6, NotFound),
        (404, None, NotFound),
        (409, None, AlreadyExists),
        (409, 18, AlreadyExists),
        (500, 4, ServiceUnavailable),
        (500, None, ServiceUnavailable),
        (502, None, ServiceUnavailable),
        (503, None, ServiceUnavailable),
        (429, None, ServiceUnavailable),
        (405, None, RequestRejected),
    ],
)
def test_the_http_status_determines_the_error(status: int, code: int | None, kind: type[MuxerError]) -> None:
    assert error_kind(response_error(status, code)) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, RequestRejected),
        (2, RequestRejected),
        (3, Forbidden),
        (4, ServiceUnavailable),
        (5, Forbidden),
        (6, NotFound),
        (7, RequestRejected),
        (10, RequestRejected),
        (18, AlreadyExists),
        (19, RequestRejected),
        (20, AccessDenied),
        ("6", NotFound),
    ],
)
def test_a_status_code_other_than_0_is_a_failure_even_with_200(code: object, kind: type[MuxerError]) -> None:
    assert error_kind(response_error(200, code)) is kind


def test_a_request_may_accept_partial_success() -> None:
    body = {"statusCode": 7, "recordings": [1]}
    assert parse_response(build_response(200, body), accepted=(0, 7)) == body


def test_the_error_carries_status_code_and_message() -> None:
    error = response_error(400, 2)
    assert isinstance(error, RequestRejected)
    assert (error.status, error.status_code) == (400, 2)
    assert "because" in str(error)
    assert "RWS GET /x" in str(error)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    error = response_error(status, Retry_After="17")
    assert isinstance(error, ServiceUnavailable)
    assert error.retry_after == 17


def test_retry_after_may_be_a_date() -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    seconds = retry_after({"Retry-After": format_datetime(later, usegmt=True)})
    assert seconds is not None
    assert 7000 < seconds <= 7200
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "\u00b2", "Mon, 01 Jan 99999 00:00:00 GMT"])
def test_a_malformed_retry_after_is_ignored(value: str) -> None:
    assert retry_after({"Retry-After": value}) is None


def test_without_retry_after_there_is_no_delay() -> None:
    assert retry_after({}) is None


@pytest.mark.parametrize("body", [b"<html>login</html>", b"[1, 2]", b'"text"', b"{broken", b"\xff\xfe", b"[" * 100_000])
def test_a_success_without_a_json_object_counts_as_unavailable(body: bytes) -> None:
    with pytest.raises(ServiceUnavailable, match="not a JSON object"):
        parse_response(build_response(200, body))


@given(st.integers(100, 599), st.binary(max_size=60))
def test_any_response_is_read_or_raises_the_expected_error(status: int, body: bytes) -> None:
    try:
        assert isinstance(parse_response(build_response(status, body)), dict)
    except MuxerError as error:
        assert "RWS GET /x" in str(error)


@pytest.mark.parametrize("code", ["Infinity", "1e999", "NaN", "null", "[]", '"x"', "-1", "3.9"])
def test_an_unexpected_status_code_does_not_break_the_reader(code: str) -> None:
    try:
        assert parse_response(build_response(200, f'{{"statusCode": {code}}}'.encode())).keys() == {"statusCode"}
    except MuxerError as error:
        assert "RWS GET /x" in str(error)


def test_a_long_message_of_the_server_is_truncated() -> None:
    with pytest.raises(MuxerError) as caught:
        parse_response(build_response(400, {"statusCode": 2, "statusMessage": "x" * 100_000}))
    assert len(str(caught.value)) < 1000


def test_a_refused_csrf_token_is_recognised_only_by_the_text_of_a_403() -> None:
    assert is_csrf_refusal(build_response(403, b"Missing or invalid Csrf token"))
    assert not is_csrf_refusal(build_response(403, {"statusCode": 5}))
    assert not is_csrf_refusal(build_response(400, b"Missing or invalid Csrf token"))
