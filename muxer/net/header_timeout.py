"""Limits the time for response headers and chunk framing: a socket's timeout limits each read only."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

# The response headers may take this many times the read timeout.
HEADER_TIMEOUT_FACTOR = 2


def with_header_deadline(pools: Mapping[str, Any], prepare: Callable[[Any], None] = lambda _: None) -> dict[str, Any]:
    """Return urllib3's pool classes by scheme, with a header timeout.

    The headers must arrive within :data:`HEADER_TIMEOUT_FACTOR` read timeouts. `prepare` gets each response before its body.
    """
    return {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": _add_header_deadline(pool.ConnectionCls, prepare)})
        for scheme, pool in pools.items()
    }


def _add_header_deadline(connection: Any, prepare: Callable[[Any], None]) -> Any:
    def getresponse(self: Any) -> Any:
        seconds = HEADER_TIMEOUT_FACTOR * self.timeout
        with _close_after(self.sock, seconds):
            response = connection.getresponse(self)
        # The response of http.client reads the chunk lengths and trailers; urllib3 has no public name for it.
        content = response._fp
        if content.fp is not None:
            content.fp = _TimedBody(content.fp, seconds)
        prepare(response)
        return response

    return type(connection.__name__, (connection,), {"getresponse": getresponse})


class _TimedBody:
    """A body whose lines (chunk lengths and trailers) take `seconds` at most until something else is read."""

    def __init__(self, stream: Any, seconds: float) -> None:
        self._stream, self._seconds = stream, seconds
        self._deadline: float | None = None

    def __getattr__(self, name: str) -> Any:
        self._deadline = None
        return getattr(self._stream, name)

    def readline(self, limit: int) -> bytes:
        """Return the next line, or `limit` bytes of it. Raises TimeoutError when the time is over."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        line = b""
        while len(line) < limit and not line.endswith(b"\n") and (buffered := self._stream.peek(1)):
            if time.monotonic() > self._deadline:
                raise TimeoutError("the response body did not end in time")
            line += self._stream.read(min(buffered.find(b"\n") + 1 or len(buffered), limit - len(line)))
        return line


@contextmanager
def _close_after(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Shut a connection down after `seconds`. Raises TimeoutError then: incomplete headers pass for complete ones."""
    expired = threading.Event()

    def close_connection() -> None:
        expired.set()
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the shutdown of TLS may only be called by the reader

    timer = threading.Timer(seconds, close_connection)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if expired.is_set():
            raise TimeoutError("the response headers did not arrive in time")
