"""S3 storage against scripted responses."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    MuxerError,
    RequestRejected,
    ServiceUnavailable,
    UnreadableResponse,
)
from muxer.net import circuit_breaker
from muxer.storage import s3, s3_http
from tests.support.s3 import SECRET, create_storage, keep_stored, replace_stored, s3_location, write_file

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")


@dataclass
class CannedResponse:
    """The response of the tiny server to one method."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_slow: bool = False


@dataclass
class TinyServer:
    """A server that stores each body under its path, records every request, and returns scripted responses."""

    url: str = ""
    responses: dict[str, CannedResponse] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    held: dict[str, bytes] = field(default_factory=dict)

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> CannedResponse:
        self.requests.append((method, path, headers))
        if method in self.responses:
            return self.responses[method]
        if method == "PUT":
            self.held[path] = body
            return CannedResponse(200, headers={"ETag": '"1"'})
        return CannedResponse(200, self.held[path]) if path in self.held else CannedResponse(404)


def handler_class(tiny: TinyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            names = {name.lower(): value for name, value in self.headers.items()}
            response = tiny.respond(self.command, self.path, names, body)
            self.send_response(response.status)
            usual = {"Content-Length": str(len(response.body)), "Connection": "close"}
            for name, value in (usual | response.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                with suppress(OSError):
                    for piece in (bytes([one]) for one in response.body) if response.is_slow else (response.body,):
                        self.wfile.write(piece)
                        time.sleep(0.05 if response.is_slow else 0)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = serve_request

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def self_signed(folder: Path) -> Path:
    """Write a key and a self-signed certificate for this machine into one PEM file."""
    path = folder / "server.pem"
    what = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=store", "-days", "2"]
    files = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out", str(path)]
    subprocess.run(["openssl", "req", "-x509", *what, *files], check=True, capture_output=True)
    with path.open("a") as file:
        file.write((folder / "key.pem").read_text())
    return path


@contextmanager
def tiny_server(certificate: Path | None = None) -> Iterator[TinyServer]:
    tiny = TinyServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_class(tiny)) as http:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        tiny.url = f"{'https' if certificate else 'http'}://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield tiny
        http.shutdown()


@pytest.fixture
def tiny() -> Iterator[TinyServer]:
    with tiny_server() as running:
        yield running


@pytest.mark.parametrize(("method", "status"), [("DELETE", 200), ("DELETE", 403), ("GET", 404)])
def test_endless_response_without_media_meets_a_limit(tiny: TinyServer, tmp_path: Path, method: str, status: int) -> None:
    tiny.responses[method] = CannedResponse(status, b" " * (s3_http.MAX_S3_RESPONSE_BYTES + 1))
    store = create_storage(tiny.url)
    with pytest.raises(UnreadableResponse, match="longer than"):
        store.delete_file(s3_location("x.mp4")) if method == "DELETE" else store.download_file(
            s3_location("x.mp4"), tmp_path / "x"
        )
    assert len(tiny.requests) == 1


def test_slow_response_without_media_meets_a_limit(tiny: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_http, "MAX_S3_RESPONSE_SECONDS", 0.3)
    tiny.responses["DELETE"] = CannedResponse(200, b" " * 100, is_slow=True)
    with pytest.raises(ServiceUnavailable, match="time limit"):
        create_storage(tiny.url).delete_file(s3_location("x.mp4"))


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_own_endpoint_gets_path_style_requests(tmp_path: Path, secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    source, certificate = write_file(tmp_path / "source", b"content"), self_signed(tmp_path) if secure else None
    with tiny_server(certificate) as tiny:
        store = create_storage(tiny.url.replace("127.0.0.1", "localhost"), trusted_ca=certificate)
        store.upload_file(source, s3_location("ä b.mp4"), keep_stored)
        assert store.download_file(s3_location("ä b.mp4"), tmp_path / "target") == 7
    assert list(tiny.held.items()) == [("/recordings/screens/%C3%A4%20b.mp4", b"content")]
    headers = next(headers for method, _, headers in tiny.requests if method == "PUT")
    assert "content-encoding" not in headers and headers["content-length"] == "7"
    assert "STREAMING" not in headers["x-amz-content-sha256"]
    assert not [name for _, _, sent in tiny.requests for name in sent if "checksum" in name or "trailer" in name]


def test_certificate_of_store_is_checked_unless_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    (tmp_path / "other").mkdir()
    with tiny_server(self_signed(tmp_path)) as tiny:
        for trusted in (True, self_signed(tmp_path / "other")):
            with pytest.raises(ServiceUnavailable, match=r"SSL"):
                create_storage(tiny.url, trusted_ca=trusted).head(s3_location("a.mp4"))
        assert tiny.requests == []
        assert create_storage(tiny.url, trusted_ca=False).head(s3_location("a.mp4")) is None


@pytest.mark.parametrize(("response", "held"), [(CannedResponse(200, b"abc"), "3 bytes"), (CannedResponse(404), "nothing")])
def test_upload_damaged_by_store_is_detected(tiny: TinyServer, tmp_path: Path, response: CannedResponse, held: str) -> None:
    tiny.responses["HEAD"] = response
    with pytest.raises(ServiceUnavailable, match=f"holds {held} after an upload of 7"):
        create_storage(tiny.url).upload_file(
            write_file(tmp_path / "source", b"content"), s3_location("a.mp4"), replace_stored
        )


def test_truncated_response_body_is_detected(tiny: TinyServer, tmp_path: Path) -> None:
    tiny.responses["GET"] = CannedResponse(200, b"short", {"Content-Length": "100"})
    with pytest.raises(ServiceUnavailable):
        create_storage(tiny.url).download_file(s3_location("a.mp4"), tmp_path / "x")


def error_xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, ""), (401, ""), (403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken")],
)
def test_refused_keys_are_reported_and_not_retried_at_once(tiny: TinyServer, tmp_path: Path, status: int, code: str) -> None:
    tiny.responses["GET"] = CannedResponse(status, error_xml(code) if code else b"")
    store = create_storage(tiny.url)
    with pytest.raises(AuthenticationFailed, match=r"\[s3\] access_key_id"):
        store.download_file(s3_location("a.mp4"), tmp_path / "x")
    with pytest.raises(AuthenticationFailed, match=r"moment ago; not tried again yet: .*\[s3\] access_key_id"):
        store.upload_file(write_file(tmp_path / "source", b"x"), s3_location("b.mp4"), keep_stored)
    assert len(tiny.requests) == 1


def test_refused_keys_are_retried_after_the_back_off(
    tiny: TinyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "LOGIN_BACKOFF_SECONDS", 0.0)
    tiny.responses["GET"] = CannedResponse(403)
    store = create_storage(tiny.url)
    for _ in range(2):
        with pytest.raises(AuthenticationFailed):
            store.download_file(s3_location("a.mp4"), tmp_path / "x")
    assert len(tiny.requests) == 2


def test_missing_permission_for_one_object_affects_no_other(tiny: TinyServer, tmp_path: Path) -> None:
    tiny.responses["GET"] = CannedResponse(403, error_xml("AccessDenied"))
    store = create_storage(tiny.url)
    with pytest.raises(AccessDenied, match="lack the right"):
        store.download_file(s3_location("a.mp4"), tmp_path / "x")
    assert store.upload_file(write_file(tmp_path / "source", b"x"), s3_location("b.mp4"), keep_stored).length == 1


@pytest.mark.parametrize(
    ("response", "error", "text"),
    [
        (CannedResponse(400, error_xml("AuthorizationHeaderMalformed")), AccessDenied, r"\[s3\] region"),
        (CannedResponse(400, error_xml("InvalidArgument")), RequestRejected, "InvalidArgument"),
        (CannedResponse(503, b"<html>busy</html>"), ServiceUnavailable, "503"),
        (CannedResponse(500), ServiceUnavailable, "500"),
        (CannedResponse(429, error_xml("SlowDown")), ServiceUnavailable, "SlowDown"),
        (CannedResponse(200, b"<html>log in</html>"), UnreadableResponse, "not valid S3"),
        (CannedResponse(200), UnreadableResponse, "not valid S3"),
    ],
)
@pytest.mark.usefixtures("small_parts")
def test_response_of_store_is_mapped_to_an_error_type(
    tiny: TinyServer,
    large: Path,
    response: CannedResponse,
    error: type[MuxerError],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    tiny.responses["POST"] = response
    with pytest.raises(error, match=text) as caught:
        create_storage(tiny.url).upload_file(large, s3_location("a.mp4"), replace_stored)
    assert type(caught.value) is error


def test_busy_store_is_retried_and_its_retry_after_is_kept(tiny: TinyServer, tmp_path: Path) -> None:
    tiny.responses["GET"] = CannedResponse(503, error_xml("SlowDown"), {"Retry-After": "7"})
    with pytest.raises(ServiceUnavailable, match="503") as caught:
        create_storage(tiny.url).download_file(s3_location("a.mp4"), tmp_path / "x")
    assert caught.value.retry_after == 7
    assert len(tiny.requests) == s3.ATTEMPTS


def closed_port() -> str:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def test_a_store_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="EndpointConnectionError"):
        create_storage(closed_port()).download_file(s3_location("a.mp4"), tmp_path / "x")


@pytest.mark.parametrize("status", [403, 400, 404, 503, 0])
def test_no_secret_is_in_an_error(tiny: TinyServer, tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    tiny.responses["GET"] = CannedResponse(status, error_xml("Any"))
    with pytest.raises(MuxerError) as caught:
        create_storage(tiny.url if status else closed_port()).download_file(s3_location("a.mp4"), tmp_path / "x")
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_boto3_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, muxer.app.assembly; print({'boto3', 'botocore', 's3transfer'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
