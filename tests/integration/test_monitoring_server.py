"""The monitoring port over http and https, with well-behaved and hostile clients."""

from __future__ import annotations

import gc
import json
import socket
import sqlite3
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from muxer.errors import AuthenticationFailed, ConfigError
from muxer.journal.journal import Journal, TargetKey, epoch_now
from muxer.monitoring import application
from muxer.monitoring import server as server_module
from muxer.monitoring.view import ViewSources
from tests.support.daemon import wait_until
from tests.support.monitoring import (
    CREDENTIALS,
    HOST,
    TIMEOUT_SECONDS,
    create_certificate,
    create_sources,
    open_server,
    parse_samples,
    readiness_reasons,
    send_request,
)
from tests.support.ports import free_port

Open = Callable[..., tuple[int, ViewSources]]
PATHS = ("/", "/metrics", "/livez", "/readyz")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return an open port, over http and without authentication."""
    number = free_port()
    with open_server(create_sources(tmp_path_factory.mktemp("port"), monitoring__http_port=number)):
        yield number


@pytest.fixture(scope="module")
def guarded_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return an open port with authentication."""
    number = free_port()
    options = {f"monitoring__{name}": value for name, value in CREDENTIALS.items()}
    with open_server(create_sources(tmp_path_factory.mktemp("guarded"), monitoring__http_port=number, **options)):
        yield number


@pytest.fixture
def quick_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "REFUSAL_DELAY_SECONDS", 0.02)


@pytest.fixture
def open_port(tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens a port with the given options."""
    with ExitStack() as stack:

        def start_server(**options: object) -> tuple[int, ViewSources]:
            number = free_port()
            sources = create_sources(tmp_path, monitoring__http_port=number, **options)
            stack.enter_context(open_server(sources))
            return number, sources

        yield start_server


def is_answered(port: int) -> bool:
    try:
        return send_request(port, "/livez").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("path", PATHS)
def test_every_page_has_security_headers(port: int, path: str) -> None:
    reply = send_request(port, path)
    assert reply.status in (200, 503) and reply.body
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert reply.headers["X-Content-Type-Options"] == "nosniff" and reply.headers["Referrer-Policy"] == "no-referrer"
    assert reply.headers["Cache-Control"] == "no-store" and "heroot" not in reply.headers["Server"]


@pytest.mark.parametrize("path", PATHS)
def test_head_returns_only_headers(port: int, path: str) -> None:
    with socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS) as client:
        client.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: client.recv(10_000), b"")).partition(b"\r\n\r\n")
    assert body == b"" and b"Content-Length: " in head and b"Content-Length: 0" not in head


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    reply = send_request(port, "/metrics", method=method)
    assert reply.status == 405 and reply.headers["Allow"] == "GET, HEAD"


def test_client_that_resets_its_connection_leaves_nothing_to_send(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 prints a traceback for a buffer that is collected with data for a closed socket."""
    is_closed: dict[int, bool] = {}
    close = server_module._Connection.close

    def close_and_look(connection: server_module._Connection) -> None:
        close(connection)
        is_closed[connection.remote_port] = connection.wfile.closed

    monkeypatch.setattr(server_module._Connection, "close", close_and_look)
    printed: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", printed.append)
    clients = set()
    for _ in range(20):
        with socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS) as client:
            clients.add(client.getsockname()[1])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    # Connections of earlier tests may end in between.
    wait_until(lambda: is_closed.keys() >= clients, TIMEOUT_SECONDS, "the end of all connections")
    gc.collect()
    assert all(is_closed.values()) and printed == []


@pytest.mark.parametrize("path", ["/metrics/", "/..", "/../muxer.cfg", "/%2e%2e/muxer.cfg", "/favicon.ico", "/metrics//"])
def test_unknown_paths_are_not_found(port: int, path: str) -> None:
    reply = send_request(port, path)
    assert reply.status == 404 and reply.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    "host", ["muxer.attacker.example", "10.0.0.1", "localhost.attacker.example", "", "[::2]", "127.0.0.1.x"]
)
def test_requests_with_foreign_host_header_are_refused(port: int, host: str) -> None:
    assert send_request(port, "/metrics", Host=host).status == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "LOCALHOST.", "127.0.0.1:80", "127.1.2.3", "[::1]:9477"])
def test_names_of_this_machine_are_accepted(port: int, host: str) -> None:
    assert send_request(port, "/livez", Host=host).status == 200


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_nothing_is_returned_without_credentials(guarded_port: int, quick_refusals: None, path: str) -> None:
    for wrong in (
        None,
        CREDENTIALS | {"password": "open"},
        CREDENTIALS | {"username": "root"},
        {"username": "", "password": ""},
    ):
        reply = send_request(guarded_port, path, login=wrong)
        assert reply.status == 401 and reply.headers["WWW-Authenticate"].startswith("Basic ")
        assert reply.body == "401 Unauthorized: authentication required\n"
    assert send_request(guarded_port, path, login=CREDENTIALS).status != 401


def test_each_authentication_failure_is_delayed(guarded_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(application.time, "sleep", waited.append)  # type: ignore[attr-defined]
    assert send_request(guarded_port, "/livez").status == 401 and waited == [application.REFUSAL_DELAY_SECONDS]
    assert send_request(guarded_port, "/livez", login=CREDENTIALS).status == 200 and len(waited) == 1


def test_malformed_credentials_are_refused(guarded_port: int, quick_refusals: None) -> None:
    for header in ("Basic", "Basic %%%", "Bearer abc", "Basic \xff\xfe", "d2F0Y2hlcjpvcGVuIHNlc2FtZQ=="):
        assert send_request(guarded_port, "/livez", Authorization=header).status == 401


def test_https_uses_the_configured_certificate(open_port: Open, tmp_path: Path) -> None:
    certificate, key, trusting = create_certificate(tmp_path)
    port, _ = open_port(monitoring__certificate=certificate, monitoring__key=key)
    reply = send_request(port, "/metrics", tls=trusting)
    assert reply.status == 200 and 'muxer_certificate_expiry_timestamp_seconds{kind="monitoring"' in reply.body
    with pytest.raises(ssl.SSLCertVerificationError):
        send_request(port, "/metrics", tls=ssl.create_default_context())
    with socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS) as plain:
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"muxer" not in plain.recv(1000)
    assert send_request(port, "/livez", tls=trusting).status == 200


@pytest.mark.parametrize("tls", [False, True])
def test_silent_and_slow_clients_do_not_block_others(
    open_port: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """More clients than workers, in every phase: connected, in the handshake, in the headers, in the response."""
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_SECONDS", 1)
    certificate, key, trusting = create_certificate(tmp_path)
    port, _ = open_port(**({"monitoring__certificate": certificate, "monitoring__key": key} if tls else {}))
    stop = threading.Event()

    def send_slowly(client: socket.socket) -> None:
        try:
            while not stop.wait(0.3):
                client.sendall(b"X")
        except OSError:
            cut_off.append(client)

    cut_off: list[socket.socket] = []
    with ExitStack() as stack:
        for number in range(20):
            client = stack.enter_context(socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS))
            if number % 2:
                client.sendall(b"\x16\x03\x01" if tls else b"GET /metrics HTTP/1.1\r\n")
                threading.Thread(target=send_slowly, args=(client,), daemon=True).start()
        assert send_request(port, "/livez", tls=trusting if tls else None).status == 200
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(cut_off) < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        stop.set()
        assert len(cut_off) == 10


@pytest.mark.parametrize(
    "begin", [b"", b"G", b"GET /livez HTTP/1.1\r\nHost: loc", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"]
)
def test_hundreds_of_partial_requests_block_no_worker(
    open_port: Open, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    for limit in ("IDLE_SECONDS", "REQUEST_TIMEOUT_SECONDS", "MAX_BUSY_SECONDS"):
        monkeypatch.setattr(server_module, limit, 600)
    port, _ = open_port()
    with ExitStack() as stack:
        clients = []
        for _ in range(50):
            clients += [
                stack.enter_context(socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS)) for _ in range(4)
            ]
            for client in clients[-4:]:
                client.sendall(begin)
            assert send_request(port, "/livez").status == 200
        # A kept connection gets its response as soon as its request is complete.
        clients[-1].sendall((b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").removeprefix(begin))
        assert b"200 OK" in clients[-1].recv(1000)


@pytest.mark.parametrize(
    "head", [b"GET /livez HTTP/1.1\r\n Host: localhost", b"GET http://[::1/livez HTTP/1.1\r\nHost: localhost"]
)
def test_unreadable_request_is_a_client_error(port: int, head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS) as client:
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 Bad Request")
    assert caplog.text == ""


def test_hundreds_of_stalled_tls_handshakes_are_closed(open_port: Open, tmp_path: Path) -> None:
    certificate, key, trusting = create_certificate(tmp_path)
    port, _ = open_port(monitoring__certificate=certificate, monitoring__key=key)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client_side.do_handshake()
    hello = outgoing.read()
    with ExitStack() as stack:
        for number in range(200):
            client = stack.enter_context(socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS))
            with suppress(OSError):
                client.sendall(hello if number % 2 else hello[:100])

        def is_answered_over_tls() -> bool:
            try:
                return send_request(port, "/livez", tls=trusting).status == 200
            except OSError:
                return False

        wait_until(is_answered_over_tls, TIMEOUT_SECONDS, "a response")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=",
        "application/openmetrics-text;=;;;",
        "application/openmetrics-text;version=1.0.0;escaping=\xe9",
        "application/openmetrics-text;version=99999999999999999999.0",
        "text/plain;version=1.x.0",
        "nonsense",
    ],
)
def test_metrics_are_returned_for_every_accept_header(port: int, accept: str) -> None:
    reply = send_request(port, "/metrics", Accept=accept)
    assert reply.status == 200 and reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_requests_that_are_too_large_are_refused(port: int) -> None:
    assert send_request(port, "/livez", X="y" * 20_000).status == 413
    with socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert b" 413 " in client.recv(1000)


def test_excess_connections_are_closed_and_later_ones_served(open_port: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE_SECONDS", 600)
    port, _ = open_port()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS)) for _ in range(100)]
        assert clients[-1].recv(1) == b""
    wait_until(lambda: is_answered(port), TIMEOUT_SECONDS, "a response")


def test_server_stops_at_once_whatever_clients_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("IDLE_SECONDS", "REQUEST_TIMEOUT_SECONDS", "STOP_TIMEOUT_SECONDS"):
        monkeypatch.setattr(server_module, limit, 600)
    number = free_port()
    with ExitStack() as stack, open_server(create_sources(tmp_path, monitoring__http_port=number)) as server:
        clients = [stack.enter_context(socket.create_connection((HOST, number), timeout=TIMEOUT_SECONDS)) for _ in range(8)]
        for client in clients[:3]:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        assert send_request(number, "/livez").status == 200
        stopping = threading.Thread(target=server.stop, daemon=True)
        stopping.start()
        stopping.join(TIMEOUT_SECONDS)
        assert not stopping.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, number), timeout=TIMEOUT_SECONDS)


def test_a_port_that_is_in_use_names_the_option(port: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"http_address = '127.0.0.1', http_port = '\d+': cannot listen"):
        server_module.MonitoringServer(create_sources(tmp_path, monitoring__http_port=port)).start()


def test_failed_server_is_logged_and_restarted(
    open_port: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    serve = server_module._Server.serve
    lives = iter([False])

    def die_once(self: server_module._Server) -> None:
        if not next(lives, True):
            raise SystemError("an accident")
        serve(self)

    monkeypatch.setattr(server_module._Server, "serve", die_once)
    monkeypatch.setattr(server_module, "RESTART_DELAY_SECONDS", 0.1)
    port, _ = open_port()
    wait_until(lambda: "restarting it" in caplog.text, TIMEOUT_SECONDS, "the line in the log")
    wait_until(lambda: is_answered(port), TIMEOUT_SECONDS, "a response")
    assert "an accident" in caplog.text and "restarting it" in caplog.text


def test_error_in_response_is_only_logged(
    open_port: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port, sources = open_port()
    monkeypatch.setattr(sources.activity, "take_snapshot", lambda: 1 / 0)
    reply = send_request(port, "/metrics")
    assert reply.status == 500 and "ZeroDivision" not in reply.body and "ZeroDivisionError" in caplog.text
    assert send_request(port, "/livez").status == 200


def test_readyz_reports_problems_as_text_and_json(open_port: Open) -> None:
    port, sources = open_port(htcc__password="top secret word")
    sources.activity.record_poll_success({}, 0.1, None)
    assert send_request(port, "/readyz").body == "ok\n"
    sources.circuit_breaker.trip(login_refusal("RWS", "RWS refuses the login top secret word"))
    reply = send_request(port, "/readyz")
    assert reply.status == 503 and reply.body.startswith("RWS is unavailable since ") and "the login ***" in reply.body
    assert readiness_reasons(port)[1] == reply.body.splitlines()
    assert json.loads(send_request(port, "/livez", Accept="application/json").body) == {"status": "ok", "reasons": []}


def login_refusal(service: str, text: str) -> AuthenticationFailed:
    error = AuthenticationFailed(text)
    error.service = service
    return error


def test_scrape_works_while_another_process_locks_the_journal(tmp_path: Path) -> None:
    """The other process either only writes or also blocks readers."""
    path, number = tmp_path / "journal.sqlite3", free_port()
    sources = create_sources(tmp_path, journal=path, monitoring__http_port=number)
    journal = Journal(path)
    journal.record_failure(TargetKey("a", "1"), ValueError("broken"), epoch_now())
    with open_server(sources):
        assert parse_samples(send_request(number, "/metrics").body)['muxer_journal_targets{state="retry"}'] == 1
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        assert parse_samples(send_request(number, "/metrics").body)['muxer_journal_targets{state="retry"}'] == 1
        holder.execute("ROLLBACK")
        journal.close()
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("PRAGMA journal_mode = DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        scraped = parse_samples(send_request(number, "/metrics").body)
        assert 'muxer_targets_total{outcome="muxed"}' in scraped and 'muxer_journal_targets{state="retry"}' not in scraped
        assert send_request(number, "/").status == 200
        holder.close()


def test_openmetrics_is_returned_on_request(port: int) -> None:
    plain = send_request(port, "/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=") and "# EOF" not in plain.body
    other = send_request(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert other.headers["Content-Type"].startswith("application/openmetrics-text") and other.body.endswith("# EOF\n")


def test_public_port_accepts_any_host_header(tmp_path: Path, quick_refusals: None) -> None:
    """Its certificate and its authentication protect it, whatever name leads to it."""
    certificate, key, trusting = create_certificate(tmp_path)
    number = free_port()
    options = {f"monitoring__{name}": value for name, value in CREDENTIALS.items()}
    sources = create_sources(
        tmp_path,
        monitoring__http_port=number,
        monitoring__http_address="0.0.0.0",
        monitoring__certificate=certificate,
        monitoring__key=key,
        **options,
    )
    with open_server(sources):
        assert send_request(number, "/livez", login=CREDENTIALS, tls=trusting, Host="muxer.example.com").status == 200
        assert send_request(number, "/livez", tls=trusting, Host="muxer.example.com").status == 401
