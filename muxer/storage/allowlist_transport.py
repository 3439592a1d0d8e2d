"""The way to WebDAV servers: every request, those of redirects too, is first held against the servers that are spoken to."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpcore
import httpx

from muxer.net.header_timeout import HEADER_TIMEOUT_FACTOR
from muxer.storage.allowed_hosts import AllowedHosts

KEEPALIVE_SECONDS = 5.0


class AllowlistTransport(httpx.HTTPTransport):
    """Sends requests to the servers that :class:`Hosts` admits, and nothing to any other."""

    def __init__(self, hosts: AllowedHosts, context: ssl.SSLContext) -> None:
        """Given the servers and the TLS context."""
        super().__init__(verify=context, trust_env=False)
        self._head = _ResponseDeadline()
        # httpx takes no connections but its own.
        self._pool = httpcore.ConnectionPool(
            context, max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS, network_backend=_DeadlineBackend(self._head)
        )
        self._hosts = hosts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raise :class:`~muxer.errors.AccessDenied` when its server is none of ours."""
        url = request.url
        host = url.raw_host.decode("ascii")
        try:
            addresses = self._hosts.resolve(url.scheme, host, url.port)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} leads nowhere: {error}") from error
        request.extensions["trace"] = self._head.follow_event
        response = self._send_request(request, addresses)
        response.stream = _DeadlineBody(response.stream, self._head, request.extensions["timeout"]["read"])
        if url.scheme == "https":
            self._hosts.remember_https(host)
        return response

    def _send_request(self, request: httpx.Request, addresses: Sequence[str]) -> httpx.Response:
        """Send a request to the first of the addresses that takes it, or to its name; in TLS the name counts in any case."""
        for address in addresses[:-1]:
            try:
                return super().handle_request(_with_address(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return super().handle_request(_with_address(request, addresses[-1]) if addresses else request)


def _with_address(request: httpx.Request, address: str) -> httpx.Request:
    """Return a request that goes to a network address, with all that it says as before."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )


class _DeadlineBody(httpx.SyncByteStream):
    """The body of an answer, in which every piece has a time limit: its length, or a trailer, may come byte by byte."""

    def __init__(self, stream: Any, head: _ResponseDeadline, seconds: float) -> None:
        self._stream, self._head, self._seconds = stream, head, seconds

    def __iter__(self) -> Iterator[bytes]:
        pieces = iter(self._stream)
        while True:
            self._head.deadline = time.monotonic() + HEADER_TIMEOUT_FACTOR * self._seconds
            try:
                piece = next(pieces, None)
            finally:
                self._head.deadline = None
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        """Give the connection back."""
        self._stream.close()


class _ResponseDeadline(threading.local):
    """How long this thread still waits for the head of an answer, or for the next piece of its body: the time-out of a
    socket counts for each read."""

    deadline: float | None = None

    def follow_event(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear from httpcore what it does."""
        if event.endswith("receive_response_headers.started"):
            self.deadline = time.monotonic() + HEADER_TIMEOUT_FACTOR * info["request"].extensions["timeout"]["read"]
        elif ".receive_response_headers." in event:
            self.deadline = None

    def limit_timeout(self, timeout: float | None) -> float | None:
        """Given the time-out of a read, return what it is now. Raise ``httpcore.ReadTimeout`` when the time is over."""
        if self.deadline is None:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the answer did not come to its end")
        return left if timeout is None else min(left, timeout)


class _DeadlineBackend(httpcore.SyncBackend):
    """Makes connections on which the head of an answer has a time limit."""

    def __init__(self, head: _ResponseDeadline) -> None:
        self._head = head

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _DeadlineStream(super().connect_tcp(*args, **kwargs), self._head)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, head: _ResponseDeadline) -> None:
        self._stream, self._head = stream, head

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._head.limit_timeout(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def start_tls(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _DeadlineStream(self._stream.start_tls(*args, **kwargs), self._head)
