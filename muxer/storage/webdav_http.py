"""The HTTP client under the WebDAV storage, apart from it: httpx and webdav4 are loaded with the first request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import webdav4.client as webdav4

from muxer import __version__, transfer

CONNECT_SECONDS, SILENCE_SECONDS = 10.0, 60.0
# An answer that is no media may take this long, however slowly it comes.
ANSWER_SECONDS = 120.0


def client(login: tuple[str, str], transport: httpx.BaseTransport, stop: threading.Event) -> webdav4.HTTPClient:
    """Given user name (empty = no login) and password, what carries requests, and the stop event, return the client."""

    def limit(response: httpx.Response) -> None:
        """Give an answer that is no media a time limit as a whole; httpx has one for each piece only."""
        if response.request.method != "GET":
            response.stream = _InTime(response.stream, str(response.request.url.copy_with(query=None)), stop)

    return webdav4.HTTPClient(
        auth=httpx.BasicAuth(*login) if login[0] else None,
        headers={"User-Agent": f"recording-muxer/{__version__}", "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        trust_env=False,
        transport=transport,
        event_hooks={"response": [limit]},
    )


class _InTime(httpx.SyncByteStream):
    """The body of an answer, which must come to its end within :data:`ANSWER_SECONDS`."""

    def __init__(self, stream: Any, what: str, stop: threading.Event) -> None:
        self._stream, self._what, self._stop = stream, what, stop
        self._deadline = time.monotonic() + ANSWER_SECONDS

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            yield piece
            transfer.check_progress(self._deadline, self._what, self._stop)

    def close(self) -> None:
        """Give the connection back."""
        self._stream.close()
