"""The HTTP client of the WebDAV storage, a separate module: httpx and webdav4 are imported with the first request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import webdav4.client as webdav4

from muxer import __version__
from muxer.net import transfer
from muxer.storage.webdav_listing import LISTING_DEPTH
from muxer.storage.webdav_login import WebdavAuth

CONNECT_SECONDS, READ_TIMEOUT_SECONDS = 10.0, 60.0
MAX_REDIRECTS = 5
# Limits of a response that is not media: it describes one file.
MAX_WEBDAV_RESPONSE_SECONDS = 120.0
MAX_WEBDAV_RESPONSE_BYTES = 1024 * 1024
# The listing of a folder is read while it arrives: a folder may hold a million files.
MAX_LISTING_SECONDS, MAX_LISTING_BYTES = 3600.0, 4 << 30
# A compressed response, which was not requested, may expand by this factor.
_MAX_COMPRESSION_RATIO = 1024


def create_http_client(
    login: WebdavAuth | None, transport: httpx.BaseTransport, stop: threading.Event
) -> webdav4.HTTPClient:
    """Return the client, with the credentials `login` if any. `stop` ends a body that is still being read."""

    def limit_response(response: httpx.Response) -> None:
        """Limit a response that is not media as a whole: httpx limits the time of each read only."""
        if not all(f"{cookie.name}{cookie.value}{cookie.path}{cookie.domain}".isascii() for cookie in client.cookies.jar):
            client.cookies.clear()  # httpx cannot send such cookies: every later request would fail.
        if response.request.method != "GET" or response.has_redirect_location:
            what = str(response.request.url.copy_with(query=None))
            limits = (_max_bytes(response), MAX_WEBDAV_RESPONSE_SECONDS)
            if response.is_success and response.request.headers.get("Depth") == LISTING_DEPTH:
                limits = (MAX_LISTING_BYTES, MAX_LISTING_SECONDS)
            response.stream = _LimitedBody(response.stream, what, *limits, stop)

    client = webdav4.HTTPClient(
        auth=login,
        headers={"User-Agent": f"recording-muxer/{__version__}", "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
        trust_env=False,
        max_redirects=MAX_REDIRECTS,
        transport=transport,
        event_hooks={"response": [limit_response]},
    )
    return client


def upload_timeout(seconds: float) -> httpx.Timeout:
    """Return the timeouts of an upload that may take `seconds`: a proxy may respond only after it has stored all of it."""
    return httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_SECONDS, read=max(seconds, READ_TIMEOUT_SECONDS))


def _max_bytes(response: httpx.Response) -> int:
    """Return the maximum size of a body as it is sent; 0 when it is compressed more than once."""
    encoding = response.headers.get("Content-Encoding", "identity")
    return 0 if "," in encoding else MAX_WEBDAV_RESPONSE_BYTES // (1 if encoding == "identity" else _MAX_COMPRESSION_RATIO)


class _LimitedBody(httpx.SyncByteStream):
    """A response body limited to `max_bytes` and `seconds`."""

    def __init__(self, stream: Any, what: str, max_bytes: int, seconds: float, stop: threading.Event) -> None:
        self._stream, deadline = stream, time.monotonic() + seconds
        self._limited = transfer.limit_body(stream, what, max_bytes, deadline, stop)

    def __iter__(self) -> Iterator[bytes]:
        return self._limited

    def close(self) -> None:
        self._stream.close()
