"""The HTTP client under the WebDAV storage, apart from it: httpx and webdav4 are loaded with the first request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import webdav4.client as webdav4

from muxer import __version__
from muxer.errors import UnreadableResponse
from muxer.net import transfer
from muxer.storage.webdav_login import WebdavAuth

CONNECT_SECONDS, SILENCE_SECONDS = 10.0, 60.0
MAX_REDIRECTS = 5
# An answer that is no media may take this long, however slowly it comes, and be so long: one file is described in it.
MAX_WEBDAV_RESPONSE_SECONDS = 120.0
MAX_WEBDAV_RESPONSE_BYTES = 1024 * 1024
# A compressed answer, which nobody asked for, may become so many times as long.
_MAX_COMPRESSION_RATIO = 1024


def create_http_client(
    login: WebdavAuth | None, transport: httpx.BaseTransport, stop: threading.Event
) -> webdav4.HTTPClient:
    """Return the client, which sends its requests through `transport`, with the credentials `login` if there are any. `stop`
    ends a response body that is still being read."""

    def limit_response(response: httpx.Response) -> None:
        """Give an answer that is no media limits as a whole; httpx reads all of it, each piece with a limit of time."""
        if response.request.method != "GET" or response.has_redirect_location:
            what = str(response.request.url.copy_with(query=None))
            response.stream = _LimitedBody(response.stream, what, _max_bytes(response), stop)

    return webdav4.HTTPClient(
        auth=login,
        headers={"User-Agent": f"recording-muxer/{__version__}", "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        trust_env=False,
        max_redirects=MAX_REDIRECTS,
        transport=transport,
        event_hooks={"response": [limit_response]},
    )


def upload_timeout(seconds: float) -> httpx.Timeout:
    """Return the timeouts of an upload that may take `seconds`: a proxy may answer only when it has stored all of it."""
    return httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS, read=max(seconds, SILENCE_SECONDS))


def _max_bytes(response: httpx.Response) -> int:
    """Return how long an answer may be as it comes. None that is compressed more than once is read."""
    encoding = response.headers.get("Content-Encoding", "identity")
    return 0 if "," in encoding else MAX_WEBDAV_RESPONSE_BYTES // (1 if encoding == "identity" else _MAX_COMPRESSION_RATIO)


class _LimitedBody(httpx.SyncByteStream):
    """The body of an answer, which must come to its end within :data:`ANSWER_SECONDS` and so many bytes."""

    def __init__(self, stream: Any, what: str, most: int, stop: threading.Event) -> None:
        self._stream, self._what, self._most, self._stop = stream, what, most, stop
        self._deadline = time.monotonic() + MAX_WEBDAV_RESPONSE_SECONDS

    def __iter__(self) -> Iterator[bytes]:
        length = 0
        for piece in self._stream:
            length += len(piece)
            if length > self._most:
                raise UnreadableResponse(f"{self._what}: the answer is longer than {self._most} bytes")
            yield piece
            transfer.check_progress(self._deadline, self._what, self._stop)

    def close(self) -> None:
        """Give the connection back."""
        self._stream.close()
