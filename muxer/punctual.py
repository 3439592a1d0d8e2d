"""Connections on which the head of an answer has a time limit: that of a socket counts for each read, and a head may come
byte by byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

# The head of an answer may take this many times the limit of silence.
SILENCES = 2


def punctual(pools: Mapping[str, Any], prepare: Callable[[Any], None] = lambda _: None) -> dict[str, Any]:
    """Given urllib3's classes of connection pools by scheme, return such with connections on which the head of an answer,
    from the request's last byte on, takes :data:`SILENCES` times the read time-out at most. ``prepare`` gets each answer
    whose body is still unread."""
    return {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": _punctual(pool.ConnectionCls, prepare)})
        for scheme, pool in pools.items()
    }


def _punctual(connection: Any, prepare: Callable[[Any], None]) -> Any:
    def getresponse(self: Any) -> Any:
        with _limited(self.sock, SILENCES * self.timeout):
            answer = connection.getresponse(self)
        prepare(answer)
        return answer

    return type(connection.__name__, (connection,), {"getresponse": getresponse})


@contextmanager
def _limited(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Break off a connection that is still in use after so many seconds, and raise ``TimeoutError``, whatever the reader
    made of it: half a head passes for a whole one."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # that of TLS is not for another thread than the reader

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            raise TimeoutError("the head of the answer did not come to its end")
