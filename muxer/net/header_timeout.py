"""Connections on which the head of an answer, and what frames the pieces of its body, have a time limit: that of a socket
counts for each read, and they may come byte by byte, or without an end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

# The head of an answer may take this many times the limit of silence.
HEADER_TIMEOUT_FACTOR = 2


def with_header_deadline(pools: Mapping[str, Any], prepare: Callable[[Any], None] = lambda _: None) -> dict[str, Any]:
    """Given urllib3's classes of connection pools by scheme, return such with connections on which the head of an answer,
    from the request's last byte on, takes :data:`SILENCES` times the read time-out at most. ``prepare`` gets each answer
    whose body is still unread."""
    return {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": _add_header_deadline(pool.ConnectionCls, prepare)})
        for scheme, pool in pools.items()
    }


def _add_header_deadline(connection: Any, prepare: Callable[[Any], None]) -> Any:
    def getresponse(self: Any) -> Any:
        seconds = HEADER_TIMEOUT_FACTOR * self.timeout
        with _close_after(self.sock, seconds):
            answer = connection.getresponse(self)
        content = answer._fp  # that of http.client, which reads the lengths of pieces and the trailers
        if content.fp is not None:
            content.fp = _TimedBody(content.fp, seconds)
        prepare(answer)
        return answer

    return type(connection.__name__, (connection,), {"getresponse": getresponse})


class _TimedBody:
    """A body whose lines (the lengths of its pieces, its trailers) take so many `seconds` at most until something else is
    read."""

    def __init__(self, stream: Any, seconds: float) -> None:
        self._stream, self._seconds = stream, seconds
        self._deadline: float | None = None

    def __getattr__(self, name: str) -> Any:
        self._deadline = None
        return getattr(self._stream, name)

    def readline(self, limit: int) -> bytes:
        """Return the next line, or so many bytes of it. Raise ``TimeoutError`` when the time is over."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        line = b""
        while len(line) < limit and not line.endswith(b"\n") and (there := self._stream.peek(1)):
            if time.monotonic() > self._deadline:
                raise TimeoutError("the body of the answer did not come to its end")
            line += self._stream.read(min(there.find(b"\n") + 1 or len(there), limit - len(line)))
        return line


@contextmanager
def _close_after(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Break off a connection that is still in use after so many seconds, and raise ``TimeoutError``, whatever the reader
    made of it: half a head passes for a whole one."""
    late = threading.Event()

    def close_connection() -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # that of TLS is not for another thread than the reader

    timer = threading.Timer(seconds, close_connection)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            raise TimeoutError("the head of the answer did not come to its end")
