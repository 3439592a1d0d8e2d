"""The HTTP base of the lab's RWS and RCS: connections, basic authentication, envelopes, scripted failures."""

from __future__ import annotations

import base64
import json
import logging
import secrets
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.message import Message
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from lab.store import RecordingStore, RequestRecord, ScriptedFailure

HOST = "127.0.0.1"
LOG = logging.getLogger(__name__)


class RequestRefused(Exception):
    """An error response of the service: HTTP status, statusCode of the envelope, message [gir-api 1]."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def to_response(self) -> LabResponse:
        """Return it as a response with an envelope."""
        return LabResponse.with_envelope({"statusMessage": self.message}, self.status, self.code)


@dataclass(frozen=True)
class ServiceAccount:
    """Credentials for basic authentication."""

    username: str
    password: str

    def accepts_headers(self, headers: Message) -> bool:
        """Return whether the request headers contain these credentials."""
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "basic" and secrets.compare_digest(given.strip().encode(), expected.encode())


@dataclass(frozen=True)
class LabRequest:
    """A request as received: method, request target (path and query), headers, body."""

    method: str
    target: str
    headers: Message
    body: bytes

    @cached_property
    def path_segments(self) -> tuple[str, ...]:
        """The decoded segments of the path."""
        return tuple(unquote(part) for part in urlsplit(self.target).path.strip("/").split("/"))

    @cached_property
    def query_parameters(self) -> dict[str, str]:
        """The decoded query parameters, including empty values."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises RequestRefused if it is not declared as JSON or is not one [gir-api 1, D].
        """
        if self.headers.get_content_type() != "application/json":
            raise RequestRefused(415, 2, "Content-Type must be application/json")
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise RequestRefused(400, 10, "The body is not a JSON object")
        return value


@dataclass
class LabResponse:
    """A response: either `body`, or `length` bytes that `stream` yields."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: Iterable[bytes] | None = None
    length: int = 0

    @classmethod
    def with_envelope(cls, content: dict[str, Any], status: int = 200, code: int = 0) -> LabResponse:
        """Return content in the envelope of gir-api 1."""
        return cls(status, json.dumps({"statusCode": code, **content}).encode())


class ServiceApplication(Protocol):
    """A service behind an HTTP server: a name for the records, and responses."""

    name: str

    def handle_request(self, request: LabRequest) -> LabResponse:
        """Return the response to a request; refusals are responses too."""


class LabServer(ThreadingHTTPServer):
    """An HTTP/1.1 server on loopback in a thread, which can be stopped while connections are open."""

    request_queue_size = 128

    def __init__(self, application: ServiceApplication, store: RecordingStore, port: int = 0) -> None:
        """Bind the port (0: any). Raises OSError if it is in use."""
        super().__init__((HOST, port), _Handler)
        self.application = application
        self.store = store
        self.url = f"http://{HOST}:{self.server_address[1]}"
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name=application.name, daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, end open connections, free the port."""
        self.shutdown()
        self.server_close()
        with self._open_lock:
            for connection in self._open:
                _shutdown_socket(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection: a kept-alive one would otherwise be served after the stop."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is over."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a client that disconnected early, instead of printing it."""
        LOG.debug("connection of %s ended early: %s", client_address, sys.exception())


def _shutdown_socket(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        LOG.debug("connection was already closed")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "GIR-lab"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: LabServer

    def _serve_request(self) -> None:
        request = LabRequest(self.command, self.path, self.headers, self._read_body())
        name, store = self.server.application.name, self.server.store
        failure = store.take_failure(name, self.command, self.path)
        response = _scripted_response(failure) if failure else self._call_application(request)
        store.record_request(RequestRecord(name, self.command, self.path, response.status))
        if response.status:
            self._send_response(response)
        else:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _serve_request

    def _read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _call_application(self, request: LabRequest) -> LabResponse:
        try:
            return self.server.application.handle_request(request)
        except Exception:
            LOG.exception("%s %s failed", request.method, request.target)
            return RequestRefused(500, 4, "Internal error").to_response()

    def _send_response(self, response: LabResponse) -> None:
        length = response.length if response.stream is not None else len(response.body)
        self.send_response(response.status)
        for name, value in {
            "Content-Type": response.content_type,
            "Content-Length": str(length),
            **response.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        for chunk in (response.body,) if response.stream is None else response.stream:
            self.wfile.write(chunk)
        if response.headers.get("Content-Length", str(length)) != str(length):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        LOG.debug(format, *args)


def _scripted_response(failure: ScriptedFailure) -> LabResponse:
    if failure.body or not failure.status:
        response = LabResponse(failure.status, failure.body, "text/plain")
    else:
        response = RequestRefused(failure.status, 4, "Scripted failure").to_response()
    response.headers.update(failure.headers)
    return response
