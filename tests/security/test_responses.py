"""Malformed responses (status, headers and body): each raises an error of the muxer that names the request."""

from __future__ import annotations

import os
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxer.config.schema import WebdavOptions
from muxer.errors import MuxerError, RequestRejected, ServiceUnavailable, UnreadableResponse
from muxer.gir import session as session_module
from muxer.gir.responses import MAX_JSON_VALUES, MAX_RETRY_AFTER_SECONDS
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.storage import webdav_http
from muxer.storage.base import WEBDAV, MediaLocation
from muxer.storage.webdav import WebdavStorage
from muxer.storage.webdav_http import MAX_WEBDAV_RESPONSE_BYTES
from tests.support.raw_server import RawServer

MAX_EXAMPLES = int(os.environ.get("MUXER_FUZZ", "60"))
FUZZ_SETTINGS = settings(
    max_examples=MAX_EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
Request = Callable[[], object]


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with RawServer() as started_server:
        yield started_server


@pytest.fixture(scope="module")
def requests(server: RawServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Request]:
    return requests_to(server.url, tmp_path_factory.mktemp("responses"), 5)


def requests_to(url: str, folder: Path, timeout: float) -> dict[str, Request]:
    """Return all requests to RWS, RCS and WebDAV, without retries and delays; `timeout` is the read timeout of RWS."""
    (folder / "uploading").mkdir()
    (folder / "source").write_bytes(b"media")
    stop = threading.Event()
    session = ServiceSession(ServiceAccount("RWS", url, "user", "password", False, timeout), stop)
    dav = WebdavStorage(WebdavOptions(username="u", password="p", trusted_ca=False), "test", folder / "uploading", stop)
    location = MediaLocation(WEBDAV, f"{url}/screens/", "a.mp4")
    return {
        "read": lambda: session.get_with_headers("api/v2/x?y=1", attempts=1),
        "write": lambda: session.write("POST", "api/v2/x", {}, csrf_sources=["api/v2/y"]),
        "text": lambda: session.get_text("version"),
        "download": lambda: session.download_media("api/v2/x", folder / "downloaded"),
        "fetch": lambda: dav.download_file(location, folder / "fetched"),
        "describe": lambda: dav.head(location),
        "store": lambda: dav.upload_file(folder / "source", location, lambda: False),
        "delete": lambda: dav.delete_file(location),
    }


def build_response(*headers: bytes, status: bytes = b"200 OK", body: bytes = b"{}") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 " + status, length, b"Connection: close", *headers, b"", body])


def propfind_response(*properties: bytes) -> bytes:
    inner = b"".join(properties)
    body = b'<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">' + inner + b"</d:multistatus>"
    return build_response(b"Content-Type: application/xml", status=b"207 Multi-Status", body=body)


ODD_RESPONSES = {
    "nothing": b"",
    "no HTTP": b"\x00\x01\x02" * 100,
    "redirect to no address": build_response(b"Location: http://[", status=b"302 Found"),
    "redirect to an invalid port": build_response(b"Location: http://x:99999999/", status=b"307 Temporary Redirect"),
    "redirect with non-ASCII letters": build_response("Location: http://\u0437/\xff".encode(), status=b"302 Found"),
    "redirect to another scheme": build_response(b"Location: file:///etc/passwd", status=b"302 Found"),
    "redirect to an empty address": build_response(b"Location: ", status=b"302 Found"),
    "redirect in a circle": build_response(b"Location: /", status=b"301 Moved"),
    "redirect to an invalid name": build_response(b"Location: http://xn--a.xn--a/", status=b"302 Found"),
    "location that is not an address": build_response(b"Content-Location: http://[", b"Content-Type: video/mp4"),
    "date of many digits": propfind_response(
        b"<d:response><d:href>/screens/a.mp4</d:href><d:propstat><d:status>HTTP/1.1 200 OK</d:status><d:prop>"
        b"<d:creationdate>9999999999999999999-01-01T00:00:00Z</d:creationdate></d:prop></d:propstat></d:response>"
    ),
    "token with non-ASCII letters": build_response("X-CSRF-HEADER: \u00fc\u0437".encode(), b"X-CSRF-TOKEN: t"),
    "token in a header of the muxer": build_response(b"X-CSRF-HEADER: Content-Length", b"X-CSRF-TOKEN: 5"),
    "token that is not a header value": build_response(b"X-CSRF-HEADER: X-T", "X-CSRF-TOKEN: \u0437\u0001".encode()),
    "invalid cookie": build_response(b"Set-Cookie: \xff\xfe=;;;=; expires=never; domain=[", b"Set-Cookie: " + b"a" * 9000),
    "invalid length": build_response(b"Content-Length: -5"),
    "length of many digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 4000 + b"\r\n\r\n{}",
    "falsely declared as compressed": build_response(b"Content-Encoding: gzip"),
    "invalid chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "invalid status": b"HTTP/1.1 999999 ?\r\n\r\n",
    "status without a number": b"HTTP/1.1 OK\r\n\r\n",
    "hundreds of headers": build_response(*(b"X-%d: y" % number for number in range(500))),
    "invalid date": build_response(b"Retry-After: Mon, 99 Foo 99999 99:99:99 GMT", status=b"503 No"),
    "multistatus without responses": propfind_response(),
    "empty response": propfind_response(b"<d:response/>"),
    "response without properties": propfind_response(b"<d:response><d:href>/screens/a.mp4</d:href></d:response>"),
    "length in words": propfind_response(
        b"<d:response><d:href>/screens/a.mp4</d:href><d:propstat><d:status>HTTP/1.1 200 OK</d:status><d:prop>"
        b"<d:getcontentlength>many</d:getcontentlength></d:prop></d:propstat></d:response>"
    ),
    "response with no address": propfind_response(b"<d:response><d:href>http://[</d:href></d:response>"),
    "response with an invalid status": propfind_response(
        b"<d:response><d:href>/screens/a.mp4</d:href><d:propstat><d:status>x</d:status><d:prop/></d:propstat></d:response>"
    ),
    "truncated XML": propfind_response(b"<d:response>")[:-10],
}


@pytest.mark.parametrize("name", ODD_RESPONSES)
def test_a_malformed_response_is_an_error_of_the_muxer(server: RawServer, requests: dict[str, Request], name: str) -> None:
    server.response = ODD_RESPONSES[name]
    for what, request in requests.items():
        try:
            request()
        except MuxerError as error:
            assert any(name in str(error) for name in ("127.0.0.1", "RWS", "the WebDAV server")), (what, error)


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS_RESPONSES = {
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n"),
    "trailers, slowly": (CHUNKED + b"0\r\n", b"A"),
    "the length of a chunk, slowly": (CHUNKED, b"0"),
    "invalid chunk lengths": (CHUNKED, b";\r\n"),
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers, slowly": (b"HTTP/1.1 200 OK\r\n", b"A"),
}


@pytest.mark.parametrize("form", ENDLESS_RESPONSES)
@pytest.mark.parametrize("what", ["read", "download", "describe", "fetch"])
def test_the_framing_of_a_body_has_a_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, what: str
) -> None:
    """The server sends only framing, each part in time: without a limit, this test does not end."""
    monkeypatch.setattr(webdav_http, "READ_TIMEOUT_SECONDS", 0.4)
    begin, again = ENDLESS_RESPONSES[form]
    closed = threading.Event()

    def serve_endlessly(listener: socket.socket) -> None:
        while not closed.is_set():
            with suppress(OSError):
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(begin)
                    while not closed.wait(0.05):
                        client.sendall(again)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=serve_endlessly, args=(listener,))
        thread.start()
        try:
            odd_requests = requests_to(f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path, 0.4)
            with pytest.raises((ServiceUnavailable, UnreadableResponse)):
                odd_requests[what]()
        finally:
            closed.set()
            thread.join()


PIECES = st.sampled_from(sorted(ODD_RESPONSES.values()))
NASTY_BYTES = st.sampled_from(
    [b"\0", b"\xff", b"\r\n", b"\n", b":", b" ", b"[", b"\xd0\xb7", b"9" * 400, b"-1", b"&", b"<", b"%", b";", b"="]
)


@st.composite
def mutated_responses(draw: Any) -> bytes:
    """Return a malformed response with a few spans replaced, removed or doubled."""
    data = bytearray(draw(PIECES))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 12)))
        data[begin:end] = draw(st.one_of(NASTY_BYTES, st.binary(max_size=8), st.just(bytes(data[begin:end]) * 2)))
    return bytes(data)


@pytest.mark.parametrize("what", ["read", "write", "text", "download", "fetch", "describe", "store", "delete"])
def test_mutated_responses_raise_only_errors_of_the_muxer(
    server: RawServer, requests: dict[str, Request], what: str
) -> None:
    @FUZZ_SETTINGS
    @given(mutated_responses())
    def send_request(response: bytes) -> None:
        server.response = response
        with suppress(MuxerError):
            requests[what]()

    send_request()


def test_a_cookie_that_is_not_ascii_does_not_break_later_requests(server: RawServer, requests: dict[str, Request]) -> None:
    server.response = build_response(b"Set-Cookie: name=\xe9", status=b"404 No")
    requests["describe"]()
    server.response = propfind_response(b"<d:response><d:href>/screens/b.mp4</d:href></d:response>")
    with suppress(MuxerError):
        requests["describe"]()
    server.response = build_response(status=b"404 No")
    assert requests["describe"]() is None


def test_a_redirect_to_no_address_names_the_server(server: RawServer, requests: dict[str, Request]) -> None:
    server.response = ODD_RESPONSES["redirect to no address"]
    with pytest.raises(UnreadableResponse, match=r"RWS /api/v2/x: redirected to a malformed address: 'http://\['"):
        requests["read"]()


@pytest.mark.parametrize("retry_after", [b"9" * 400, b"9" * 30, b"Fri, 31 Dec 9999 23:59:59 GMT"])
def test_the_delay_requested_by_a_server_has_a_limit(
    server: RawServer, requests: dict[str, Request], retry_after: bytes
) -> None:
    server.response = build_response(b"Retry-After: " + retry_after, status=b"503 No")
    for what in ("read", "write", "describe"):
        with pytest.raises(ServiceUnavailable) as caught:
            requests[what]()
        assert caught.value.retry_after == MAX_RETRY_AFTER_SECONDS


def test_a_response_with_too_many_values_is_not_parsed(server: RawServer, requests: dict[str, Request]) -> None:
    server.response = build_response(body=b"[" + b"{}," * MAX_JSON_VALUES + b"{}]")
    with pytest.raises(RequestRejected, match=r"more than \d+ values; a smaller \[advanced\] pagination may help"):
        requests["read"]()


def test_old_cookies_of_an_endless_number_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer() as server:
        session = ServiceSession(ServiceAccount("RWS", server.url, "user", "password", False, 5), threading.Event())
        for number in range(200):
            server.response = build_response(b"Set-Cookie: c%d=%s; Path=/" % (number, b"x" * 500))
            session.get("api/v2/x")
            sent = session._thread_session.cookies
            assert sum(len(item.value or "") for item in sent) <= session_module.MAX_COOKIE_LENGTH


# The largest responses that are parsed, in the forms that need the most memory per byte.
COSTLY_RESPONSES = {
    "read": build_response(body=b'{"a":[' + b"[]," * (MAX_JSON_VALUES // 2 - 10) + b"[]]}"),
    "describe": propfind_response(b"<d:response>", b"<a/>" * (MAX_WEBDAV_RESPONSE_BYTES // 4 - 200), b"</d:response>"),
    "delete": propfind_response(b"<d:response>", b"<a b=''/>" * (MAX_WEBDAV_RESPONSE_BYTES // 9 - 200), b"</d:response>"),
}


@pytest.mark.parametrize("what", COSTLY_RESPONSES)
def test_no_response_takes_more_memory_than_a_media_program(
    server: RawServer, requests: dict[str, Request], what: str
) -> None:
    server.response = COSTLY_RESPONSES[what]
    tracemalloc.start()
    try:
        with suppress(MuxerError):
            requests[what]()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(COSTLY_RESPONSES[what]) < peak < 200 * 1024 * 1024
