"""A proxy in front of a store that refuses every write to a source and records all writes."""

from __future__ import annotations

import re
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

HOST = "127.0.0.1"
READ_METHODS = ("GET", "HEAD", "OPTIONS", "PROPFIND")
MUXED_NAME = re.compile(r"_[0-9a-f]{20}_muxed\.mp4(\.bin)?$")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade"}


class ReadOnlySources(ThreadingHTTPServer):
    """A reverse proxy on loopback: ``with ReadOnlySources(url) as store``.

    `writes` are the method and path of all write requests, `refused` those to a source."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__((HOST, 0), _Handler)
        self.target = urlsplit(target).netloc
        self.url = f"http://{HOST}:{self.server_address[1]}"
        self.writes: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []

    def __enter__(self) -> ReadOnlySources:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ReadOnlySources

    def _forward_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command not in READ_METHODS and self._is_refused():
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = HTTPConnection(self.server.target, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        connection.request(self.command, self.path, body or None, headers)
        self._send_response(connection)

    do_GET = do_HEAD = do_OPTIONS = do_PROPFIND = do_PUT = do_POST = do_DELETE = do_MOVE = do_COPY = _forward_request
    do_PROPPATCH = do_LOCK = do_UNLOCK = do_MKCOL = do_PATCH = _forward_request

    def _is_refused(self) -> bool:
        """Record a write request; return whether it is for anything but a muxed file of the muxer."""
        paths = [self.path, *([self.headers["Destination"]] if "Destination" in self.headers else [])]
        self.server.writes.append((self.command, self.path))
        if all(MUXED_NAME.search(unquote(urlsplit(path).path)) for path in paths):
            return False
        self.server.refused.append((self.command, self.path))
        return True

    def _send_response(self, connection: HTTPConnection) -> None:
        response = connection.getresponse()
        body = response.read()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in {*_HOP_BY_HOP, "content-length", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(response.getheader("Content-Length", "0") if not body else len(body)))
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    def log_message(self, *_: object) -> None:
        """Log nothing."""
