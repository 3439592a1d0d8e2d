"""The HTTP transport to WebDAV servers: checks every request, also of redirects, against the allowed servers."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpcore
import httpx

from muxer.net.header_timeout import HEADER_TIMEOUT_FACTOR
from muxer.net.transfer import CHUNK_BYTES
from muxer.storage.allowed_hosts import AllowedHosts

KEEPALIVE_SECONDS = 5.0


class AllowlistTransport(httpx.HTTPTransport):
    """Sends requests only to the servers that :class:`AllowedHosts` allows."""

    def __init__(self, hosts: AllowedHosts, context: ssl.SSLContext) -> None:
        super().__init__(verify=context, trust_env=False)
        self._deadlines = _ResponseDeadline()
        # httpx has no public way to set the network backend of its connections.
        self._pool = httpcore.ConnectionPool(
            context,
            max_connections=None,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=_DeadlineBackend(self._deadlines),
        )
        self._hosts = hosts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises AccessDenied when its server is not allowed."""
        url = request.url
        host = url.raw_host.decode("ascii")
        try:
            addresses = self._hosts.resolve(url.scheme, host, url.port)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} cannot be resolved: {error}") from error
        request.extensions["trace"] = self._deadlines.follow_event
        response = self._send_request(request, addresses)
        response.stream = _DeadlineBody(response.stream, self._deadlines, request.extensions["timeout"]["read"])
        if url.scheme == "https":
            self._hosts.remember_https(host)
        return response

    def _send_request(self, request: httpx.Request, addresses: Sequence[str]) -> httpx.Response:
        """Send a request to the first address that accepts it, or to its name. TLS always checks the name."""
        for address in addresses[:-1]:
            try:
                return super().handle_request(_with_address(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return super().handle_request(_with_address(request, addresses[-1]) if addresses else request)


def _with_address(request: httpx.Request, address: str) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )


class _DeadlineBody(httpx.SyncByteStream):
    """A response body with a time limit for every chunk: its length, or a trailer, may arrive byte by byte."""

    def __init__(self, stream: Any, deadlines: _ResponseDeadline, seconds: float) -> None:
        self._stream, self._deadlines, self._seconds = stream, deadlines, seconds

    def __iter__(self) -> Iterator[bytes]:
        pieces = iter(self._stream)
        while True:
            self._deadlines.deadline = time.monotonic() + HEADER_TIMEOUT_FACTOR * self._seconds
            try:
                piece = next(pieces, None)
            finally:
                self._deadlines.deadline = None
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        self._stream.close()


class _ResponseDeadline(threading.local):
    """The deadline of this thread for headers or the next chunk: a socket's timeout limits each read only."""

    deadline: float | None = None

    def follow_event(self, event: str, info: Mapping[str, Any]) -> None:
        """Set or clear the deadline; a trace function of httpcore."""
        if event.endswith("receive_response_headers.started"):
            self.deadline = time.monotonic() + HEADER_TIMEOUT_FACTOR * info["request"].extensions["timeout"]["read"]
        elif ".receive_response_headers." in event:
            self.deadline = None

    def limit_timeout(self, timeout: float | None) -> float | None:
        """Return the timeout of a read, limited by the deadline. Raises httpcore.ReadTimeout after it."""
        if self.deadline is None:
            return timeout
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise httpcore.ReadTimeout("the response headers did not arrive in time")
        return remaining if timeout is None else min(remaining, timeout)


class _DeadlineBackend(httpcore.SyncBackend):
    def __init__(self, deadlines: _ResponseDeadline) -> None:
        self._deadlines = deadlines

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _DeadlineStream(super().connect_tcp(*args, **kwargs), self._deadlines)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadlines: _ResponseDeadline) -> None:
        self._stream, self._deadlines = stream, deadlines

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # httpcore asks for 64 KiB; a large file costs a tenth less with fewer and larger parts.
        return self._stream.read(max(max_bytes, CHUNK_BYTES), self._deadlines.limit_timeout(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def start_tls(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _DeadlineStream(self._stream.start_tls(*args, **kwargs), self._deadlines)
