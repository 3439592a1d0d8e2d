"""Another host, which must never receive credentials: it records requests and returns a page for every path."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.faults.proxy import HOST, LOGIN_PAGE


class RedirectTarget(ThreadingHTTPServer):
    """``with RedirectTarget() as other``: ``other.authorized`` are the requests with credentials or a cookie."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        # The name is another host than 127.0.0.1.
        self.url = f"http://localhost:{self.server_address[1]}"
        self.requests: list[str] = []
        self.authorized: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: RedirectTarget

    def _send_page(self) -> None:
        self.server.requests.append(self.path)
        if any(self.headers.get(name) for name in ("Authorization", "Cookie", "X-Amz-Security-Token")):
            self.server.authorized.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(LOGIN_PAGE)))
        self.end_headers()
        self.wfile.write(LOGIN_PAGE)

    do_GET = do_POST = do_PUT = do_DELETE = do_PROPFIND = do_MOVE = do_HEAD = _send_page

    def log_message(self, *_: object) -> None:
        """Log nothing."""
