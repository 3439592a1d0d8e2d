"""The HTTP server of the monitoring port: few workers and short limits, so that clients cannot delay or end the muxer."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import ssl
import threading
import time
from typing import Any

from cheroot import wsgi
from cheroot.errors import FatalSSLAlert
from cheroot.makefile import MakeFile
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter

from muxer.config.monitoring_address import resolve_address, server_context
from muxer.config.schema import MonitoringOptions
from muxer.errors import ConfigError, Problem
from muxer.monitoring.application import MonitoringApplication
from muxer.monitoring.certificate_expiry import ServerCertificates
from muxer.monitoring.view import ViewSources

log = logging.getLogger(__name__)

WORKER_THREADS = 4
# Connections that wait for a worker, that have sent nothing yet, and that have sent the start of a request.
MAX_QUEUED_CONNECTIONS, MAX_SILENT_CONNECTIONS, MAX_UNFINISHED_REQUESTS = 32, 64, 64
# A client that sends and reads nothing for the first time, or has not finished after the second, is disconnected.
IDLE_SECONDS, REQUEST_TIMEOUT_SECONDS = 5, 10
# The limit for the TLS handshake and the request while other clients wait for a worker.
MAX_BUSY_SECONDS = 0.5
MAX_HEADER_BYTES, MAX_BODY_BYTES = 16 * 1024, 1024
SERVER_CHECK_INTERVAL = 0.1
START_TIMEOUT_SECONDS = 10.0
STOP_TIMEOUT_SECONDS = 2
# The type of the first TLS record, and the length of a record header, which ends with the length of the content.
_TLS_HANDSHAKE, _TLS_RECORD = 22, 5
RESTART_DELAY_SECONDS = 5.0


class MonitoringServer:
    """The monitoring port, open from :meth:`start` to :meth:`stop`."""

    def __init__(self, sources: ViewSources) -> None:
        self._monitoring = sources.config.monitoring
        listening = resolve_address(self._monitoring.http_address)
        self._address = (listening.address, self._monitoring.http_port)
        self._stop = threading.Event()
        self._servers = ServerCertificates(sources, self._stop)
        self._application = MonitoringApplication(sources, self._servers, listening.loopback)
        self._begun: queue.Queue[OSError | None] = queue.Queue()
        self._thread = threading.Thread(target=self._serve_until_stop, name="monitoring", daemon=True)

    def start(self) -> None:
        """Open the port. Raises ConfigError when that is not possible."""
        self._thread.start()
        try:
            problem = self._begun.get(timeout=START_TIMEOUT_SECONDS)
        except queue.Empty:
            problem = TimeoutError(f"no result after {START_TIMEOUT_SECONDS:.0f} s")
        if problem is not None:
            raise ConfigError([_port_problem(self._monitoring, problem)])
        self._servers.start()
        scheme = "https" if self._monitoring.certificate else "http"
        log.info("metrics, health and status page: %s://%s:%d/", scheme, *self._address)

    def stop(self) -> None:
        """Close the port and all connections within :data:`STOP_TIMEOUT_SECONDS`."""
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_SECONDS)

    def _serve_until_stop(self) -> None:
        """Serve until the stop; restart a server that ends earlier."""
        server = self._open_server()
        while server is not None:
            self._watch_server(server)
            with contextlib.suppress(Exception):
                server.stop()
            server = None
            while server is None and not self._stop.is_set():
                log.error("the server of the monitoring port has ended; restarting it")
                self._stop.wait(RESTART_DELAY_SECONDS)
                server = self._open_server()

    def _open_server(self) -> _Server | None:
        """Return a server whose port is open, or None; report which to :meth:`start`."""
        try:
            server = _Server(self._address, self._application, self._monitoring)
            server.prepare()
        except OSError as error:
            self._begun.put(error)
            return None
        self._begun.put(None)
        return server

    def _watch_server(self, server: _Server) -> None:
        thread = threading.Thread(target=_run_server, args=(server,), name="monitoring server", daemon=True)
        thread.start()
        while not self._stop.wait(SERVER_CHECK_INTERVAL) and thread.is_alive():
            server.hand_over_ready()
            server.close_overdue(older_than=REQUEST_TIMEOUT_SECONDS)
        server.close_overdue(older_than=0.0)


def _run_server(server: _Server) -> None:
    try:
        server.serve()
    except BaseException:
        log.critical("the server of the monitoring port ended with an unexpected error", exc_info=True)


class _Server(wsgi.Server):
    """cheroot with one request for each connection and limits on the time of a worker."""

    # The sleep of an idle server, and so the time of a stop.
    expiration_interval = 0.2
    max_request_header_size, max_request_body_size = MAX_HEADER_BYTES, MAX_BODY_BYTES
    # Scrapes are far apart, so open connections are of no use.
    can_add_keepalive_connection = False

    def __init__(self, address: tuple[str, int], application: MonitoringApplication, monitoring: MonitoringOptions) -> None:
        super().__init__(
            address,
            application,
            numthreads=WORKER_THREADS,
            max=WORKER_THREADS,
            server_name="recording-muxer",
            timeout=IDLE_SECONDS,
            request_queue_size=MAX_SILENT_CONNECTIONS,
            shutdown_timeout=STOP_TIMEOUT_SECONDS // 2,
            accepted_queue_size=MAX_QUEUED_CONNECTIONS,
            accepted_queue_timeout=0,
        )
        self.ConnectionClass = _Connection
        self.talking: set[_Connection] = set()
        # Connections that have sent nothing yet, and the time of arrival of those beyond the limit.
        self.silent: set[_Connection] = set()
        self._surplus: dict[_Connection, float] = {}
        # The arrival of connections that have sent the start of a request: they occupy no worker.
        self._unfinished: dict[_Connection, float] = {}
        if monitoring.certificate and monitoring.key:
            self.ssl_adapter = _Tls(server_context(monitoring.certificate, monitoring.key))

    def process_conn(self, conn: _Connection) -> None:
        """Let a connection wait for data, for its complete request, then for a worker; beyond the limit not for long."""
        if conn.is_new:
            conn.is_new = False
            if len(self.silent) < MAX_SILENT_CONNECTIONS:
                self.silent.add(conn)
            else:
                self._surplus[conn] = time.monotonic()
            self.put_conn(conn)
            while len(self._surplus) > MAX_SILENT_CONNECTIONS:
                self._close_silent(next(iter(self._surplus)))
        elif conn.is_given_up:
            conn.close()
        else:
            self.mark_heard(conn)
            self._unfinished[conn] = time.monotonic()
            self._hand_to_worker(conn)
            while len(self._unfinished) > MAX_UNFINISHED_REQUESTS:
                self._drop_connection(next(iter(self._unfinished)))

    def mark_heard(self, conn: _Connection) -> None:
        self.silent.discard(conn)
        self._surplus.pop(conn, None)

    def _close_silent(self, conn: _Connection) -> None:
        """Shut down a silent connection. cheroot hands it over as if the client had left; only then it may be closed."""
        self.mark_heard(conn)
        conn.is_given_up = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(conn.socket, socket.SHUT_RDWR)

    def hand_over_ready(self) -> None:
        """Hand over connections with complete requests; close those that take too long."""
        for conn, arrived in list(self._surplus.items()):
            if time.monotonic() - arrived >= MAX_BUSY_SECONDS:
                self._close_silent(conn)
        for conn, started in list(self._unfinished.items()):
            if time.monotonic() - started >= REQUEST_TIMEOUT_SECONDS:
                self._drop_connection(conn)
            else:
                self._hand_to_worker(conn)

    def _hand_to_worker(self, conn: _Connection) -> None:
        """Hand a connection to the workers once its request header is complete."""
        if conn.has_complete_headers() and self._unfinished.pop(conn, None) is not None:
            try:
                self.requests.put(conn)
            except queue.Full:
                conn.close()

    def _drop_connection(self, conn: _Connection) -> None:
        if self._unfinished.pop(conn, None) is not None:
            conn.close()

    def close_overdue(self, older_than: float) -> None:
        """Shut down connections served for `older_than` seconds; incomplete ones sooner while others wait."""
        now = time.monotonic()
        pressed = min(older_than, MAX_BUSY_SECONDS) if self.requests.qsize else older_than
        for conn in list(self.talking):
            if now - conn.begun >= (older_than if conn.is_heard else pressed):
                with contextlib.suppress(OSError):
                    # Not the method of the TLS socket, which the worker is using.
                    socket.socket.shutdown(conn.socket, socket.SHUT_RDWR)
        if not older_than:
            for conn in list(self._unfinished):
                self._drop_connection(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Write to the log; errors of clients at level debug."""
        log.log(level if level >= logging.ERROR else logging.DEBUG, "monitoring port: %s", msg, exc_info=traceback)


class _Request(HTTPRequest):
    """A request that marks its connection once it is read."""

    def parse_request(self) -> None:
        """Read the request. Some malformed requests raise errors in cheroot."""
        try:
            super().parse_request()
        except (UnboundLocalError, ValueError):
            self.simple_response("400 Bad Request", "Malformed request.")

    def respond(self) -> None:
        self.conn.is_heard = True
        super().respond()


class _Connection(HTTPConnection):
    """A connection that records since when a worker serves it, and whether its request is complete."""

    RequestHandlerClass = _Request
    begun = 0.0
    is_new = True
    is_heard = False
    is_given_up = False

    def close(self) -> None:
        self.server.mark_heard(self)
        super().close()
        # Else it would send what is left of a response to a client that is gone, and Python 3.13 would print a traceback.
        self.wfile.raw.close()

    def has_complete_headers(self) -> bool:
        """Return whether the request header, or the first TLS record, is complete, too long, or can no longer arrive."""
        try:
            # Not the method of the TLS socket, which would decrypt.
            data = socket.socket.recv(self.socket, MAX_HEADER_BYTES, socket.MSG_PEEK)
        except OSError:
            return True
        if not data or len(data) >= MAX_HEADER_BYTES:
            return True
        if not isinstance(self.socket, ssl.SSLSocket):
            return b"\r\n\r\n" in data or b"\n\n" in data
        is_handshake = data[0] == _TLS_HANDSHAKE
        return not is_handshake or (
            len(data) >= _TLS_RECORD and len(data) >= _TLS_RECORD + int.from_bytes(data[3:_TLS_RECORD], "big")
        )

    def communicate(self) -> bool:
        self.begun = time.monotonic()
        self.server.talking.add(self)
        try:
            return self._complete_handshake() and bool(super().communicate())  # type: ignore[no-untyped-call]
        finally:
            self.server.talking.discard(self)

    def _complete_handshake(self) -> bool:
        """Complete the TLS handshake, if any; return whether that succeeded."""
        try:
            if isinstance(self.socket, ssl.SSLSocket):
                self.socket.do_handshake()
        except OSError as error:
            log.debug("monitoring port: TLS handshake with a client failed: %s", error)
            return False
        return True


class _Tls(Adapter):
    """TLS with the handshake in a worker thread; the adapters of cheroot make it in the thread that accepts connections."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def bind(self, sock: socket.socket) -> socket.socket:
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        try:
            return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), self.get_environ()
        except OSError as error:
            raise FatalSSLAlert(*error.args) from error

    def get_environ(self) -> dict[str, str]:
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: socket.socket, mode: str = "r", bufsize: int = -1) -> Any:
        return MakeFile(sock, mode, bufsize)


def _port_problem(monitoring: MonitoringOptions, error: OSError) -> Problem:
    option = f"[monitoring] http_address = '{monitoring.http_address}', http_port = '{monitoring.http_port}'"
    return Problem(option, f"cannot listen: {error}; is another program or another muxer using this port?")
