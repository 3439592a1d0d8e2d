"""A server that sends the same bytes in response to every request and closes the connection."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

TIMEOUT_SECONDS = 5.0


class RawServer:
    """A server on loopback: ``with RawServer() as server: server.response = b"HTTP/1.1 200 OK..."``."""

    def __init__(self) -> None:
        self.response = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve_clients, daemon=True)

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(TIMEOUT_SECONDS)

    def _serve_clients(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(TIMEOUT_SECONDS)
                head = b""
                while b"\r\n\r\n" not in head and (chunk := client.recv(65536)):
                    head += chunk
                client.sendall(self.response)
                client.shutdown(socket.SHUT_WR)
                # Unread request bytes must not reset the connection before the client has read the response.
                while client.recv(65536):
                    pass
