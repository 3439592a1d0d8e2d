"""Endless or compressed WebDAV responses without media: a limit applies before they fill the memory."""

from __future__ import annotations

import gzip
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from muxer.config.schema import WebdavOptions
from muxer.errors import UnreadableResponse
from muxer.storage.base import WEBDAV, MediaLocation
from muxer.storage.webdav import WebdavStorage

PIECE = b" " * (1 << 20)
# More than the limit, and small enough for the test if there is no limit.
PIECE_COUNT = 200


@contextmanager
def canned_server(status: int, pieces: Callable[[], Iterator[bytes]], **headers: str) -> Iterator[str]:
    """Yield the URL of a server that returns one response to every request."""

    class Handler(BaseHTTPRequestHandler):
        def send_pieces(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            with suppress(OSError):
                for piece in pieces():
                    self.wfile.write(piece)

        do_GET = do_PROPFIND = do_DELETE = send_pieces

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/"
    finally:
        http.shutdown()
        http.server_close()


def endless_body() -> Iterator[bytes]:
    yield from (PIECE for _ in range(PIECE_COUNT))


def gzip_bomb() -> Iterator[bytes]:
    yield gzip.compress(PIECE * PIECE_COUNT)


@pytest.mark.parametrize(
    ("status", "pieces", "headers", "fetch"),
    [
        (207, endless_body, {}, False),
        (207, gzip_bomb, {"Content_Encoding": "gzip"}, False),
        (207, gzip_bomb, {"Content_Encoding": "gzip, gzip"}, False),
        (302, endless_body, {"Location": "/elsewhere"}, True),
    ],
)
def test_endless_response_meets_a_limit(
    tmp_path: Path, status: int, pieces: Callable[[], Iterator[bytes]], headers: dict[str, str], fetch: bool
) -> None:
    body = list(pieces())
    with canned_server(status, lambda: iter(body), **headers) as url:
        storage = WebdavStorage(
            WebdavOptions(username="a", password="b", trusted_ca=False), "t", tmp_path, threading.Event()
        )
        place = MediaLocation(WEBDAV, url, "x.mp4")
        tracemalloc.start()
        try:
            with pytest.raises(UnreadableResponse, match="longer than"):
                storage.download_file(place, tmp_path / "x") if fetch else storage.head(place)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most < 100 << 20
