"""No output of the log stops the muxer: lines are lost when it hangs, which is reported once."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxer.config.schema import LogfileOptions
from muxer.log import background, outputs, setup
from muxer.log.outputs import find_loss
from tests.support.daemon import wait_until
from tests.support.log_handlers import restored_log_handlers

log = logging.getLogger("muxer.test")
TIMEOUT_SECONDS = 30
JOURNAL = LogfileOptions(None, "info", "text", 0, 1, output="journald")


@pytest.fixture(autouse=True)
def clean_root() -> Iterator[None]:
    with restored_log_handlers():
        yield


def syslog_options(address: object) -> LogfileOptions:
    return LogfileOptions(None, "info", "text", 0, 1, output="syslog", syslog_address=str(address))


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # the path of a socket has a short limit
    return "/proc/self/cwd/log"


@pytest.mark.posix
def test_a_syslog_service_that_does_not_read_stops_nothing(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(background, "MAX_WAITING_LINES", 50)
    monkeypatch.setattr(background, "END_TIMEOUT_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(address)
        setup.set_up_logging(syslog_options(address), "single", ())
        writer = threading.Thread(target=lambda: [log.info("line %d", number) for number in range(2000)], daemon=True)
        writer.start()
        writer.join(TIMEOUT_SECONDS)
        assert not writer.is_alive()
        shutdown = threading.Thread(target=logging.shutdown, daemon=True)
        shutdown.start()
        shutdown.join(TIMEOUT_SECONDS)
        assert not shutdown.is_alive()
        assert capsys.readouterr().err.count("cannot be written, lines are lost") == 1
        service.settimeout(TIMEOUT_SECONDS)
        while "lines of the log are lost: syslog at" not in service.recv(1 << 16).decode():
            pass


def test_more_lines_at_once_than_may_wait_are_not_lost_while_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example the failed recordings at the end of a migration."""
    monkeypatch.setattr(background, "MAX_WAITING_LINES", 10)
    written = []

    class SlowHandler(background.BackgroundHandler):
        destination = "the test"

        def write_line(self, level: int, line: str) -> None:
            time.sleep(0.001)
            written.append(line)

    logging.getLogger().addHandler(SlowHandler())
    for number in range(200):
        log.warning("line %d", number)
    logging.shutdown()
    assert written == [f"line {number}" for number in range(200)]


def test_last_lines_that_are_not_written_in_time_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(background, "END_TIMEOUT_SECONDS", 0.1)
    is_over = threading.Event()

    class SlowHandler(background.BackgroundHandler):
        destination = "the test"

        def write_line(self, level: int, line: str) -> None:
            is_over.wait(TIMEOUT_SECONDS)

    logging.getLogger().addHandler(SlowHandler())
    log.warning("last")
    logging.shutdown()
    is_over.set()
    assert "the test has not taken the last lines in time, they are lost" in capsys.readouterr().err


def test_the_report_of_lost_lines_is_written_while_the_process_ends() -> None:
    is_ending, written = threading.Event(), []

    class FailingHandler(background.BackgroundHandler):
        destination = "the test"

        def write_line(self, level: int, line: str) -> None:
            if line == "lost":
                raise OSError("it does not take any")
            is_ending.wait(TIMEOUT_SECONDS)
            written.append((level, line))

        def close(self) -> None:
            is_ending.set()
            super().close()

    logging.getLogger().addHandler(FailingHandler())
    log.warning("lost")
    log.warning("kept")
    logging.shutdown()
    assert written == [
        (logging.WARNING, "kept"),
        (logging.WARNING, "lines of the log are lost: the test could not be written for 0 s"),
    ]


@pytest.mark.posix
def test_a_syslog_service_that_starts_later_gets_the_lines_after_it(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stopped:
        stopped.bind(address)
    assert find_loss(syslog_options(address)) is not None
    setup.set_up_logging(syslog_options(address), "single", ())
    log.info("lost")
    wait_until(lambda: "lines are lost" in capsys.readouterr().err, TIMEOUT_SECONDS, "the report")
    Path(address).unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(address)
        assert find_loss(syslog_options(address)) is None
        service.settimeout(TIMEOUT_SECONDS)
        log.info("kept")
        assert service.recv(1 << 16).decode().endswith("kept")


def test_an_unknown_syslog_host_is_looked_up_until_it_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        options = syslog_options(f"localhost:{service.getsockname()[1]}")
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", fail)
            loss = find_loss(options)
            assert loss is not None and "Temporary failure" in loss[0]
            setup.set_up_logging(options, "single", ())
            log.info("lost")
            wait_until(lambda: "Temporary failure" in capsys.readouterr().err, TIMEOUT_SECONDS, "the report")
        known = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", service.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [known])
        service.settimeout(TIMEOUT_SECONDS)
        log.info("kept")
        assert service.recv(1 << 16).decode().endswith("kept")


def receive_line(service: socket.socket) -> tuple[socket.socket, str]:
    """Accept a connection and return it, and what it receives up to the end of a line."""
    connection, received = service.accept()[0], b""
    connection.settimeout(TIMEOUT_SECONDS)
    while not received.endswith(b"\0"):
        received += connection.recv(1 << 16)
    return connection, received.decode()


def listen(address: str) -> socket.socket:
    service = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    service.bind(address)
    service.listen()
    service.settimeout(TIMEOUT_SECONDS)
    return service


@pytest.mark.posix
def test_a_syslog_service_that_reads_a_stream_gets_each_line_also_after_its_restart(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with listen(address) as service:
        assert find_loss(syslog_options(address)) is None
        service.accept()[0].close()
        setup.set_up_logging(syslog_options(address), "single", ())
        log.info("first\nand more")
        connection, line = receive_line(service)
        assert line.startswith("<30>recording-muxer-single[") and line.count("\0") == 1
        connection.close()
    Path(address).unlink()
    with listen(address) as service:
        log.info("second")
        connection, line = receive_line(service)
        assert line.startswith("<30>recording-muxer-single[") and line.endswith("second\0")
        connection.close()
    Path(address).unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(address)
        service.settimeout(TIMEOUT_SECONDS)
        log.info("third")
        assert service.recv(1 << 16).decode().endswith("third")
    assert capsys.readouterr().err == ""


@pytest.mark.posix
def test_a_check_does_not_wait_for_a_syslog_service_that_accepts_no_connection(address: str) -> None:
    with listen(address) as service, contextlib.ExitStack() as waiting:
        service.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                client = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                client.setblocking(False)
                client.connect(address)
        assert find_loss(syslog_options(address)) is not None


@pytest.mark.parametrize("fault", ["no sockets", "no route"])
def test_syslog_uses_the_address_that_this_machine_can_reach(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    class Ipv4Socket(socket.socket):
        def __init__(self, family: int = -1, *more: int, **named: int) -> None:
            if family == socket.AF_INET6 and fault == "no sockets":
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family if family == -1 else socket.AF_INET, *more, **named)

        def connect(self, target: Any) -> None:
            if target[0] == "::1":
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            super().connect(target)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(TIMEOUT_SECONDS)
        port = service.getsockname()[1]
        found = [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))]
        known = [(family, socket.SOCK_DGRAM, 17, "", target) for family, target in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
        monkeypatch.setattr(socket, "socket", Ipv4Socket)
        assert find_loss(syslog_options(f"localhost:{port}")) is None
        setup.set_up_logging(syslog_options(f"localhost:{port}"), "single", ())
        log.info("kept")
        assert service.recv(1 << 16).decode().endswith("kept")


def test_a_syslog_host_that_refused_a_line_gets_the_next() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopped:
        stopped.bind(("127.0.0.1", 0))
        target = stopped.getsockname()
    handler = outputs.SyslogHandler(f"127.0.0.1:{target[1]}", "single")
    handler.write_line(logging.INFO, "lost")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(target)
        service.settimeout(TIMEOUT_SECONDS)
        handler.write_line(logging.INFO, "kept")
        assert service.recv(1 << 16).decode().endswith("kept")


def test_check_names_a_machine_without_a_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outputs, "_JOURNAL_SOCKET", tmp_path / "stdout")
    loss = find_loss(JOURNAL)
    assert loss is not None and "no journal of systemd" in loss[0]
    (tmp_path / "stdout").touch()
    assert find_loss(JOURNAL) is None


@pytest.mark.posix
def test_a_pipe_of_stderr_that_no_one_reads_does_not_keep_the_process() -> None:
    script = (
        "import logging; from muxer.app.service import exit_process; from muxer.config.schema import LogfileOptions\n"
        "from muxer.log import background, setup; background.END_TIMEOUT_SECONDS = 0.1\n"
        "setup.set_up_logging(LogfileOptions(None, 'info', 'text', 0, 1, output='stderr'), 'single', ())\n"
        "for number in range(20_000): logging.getLogger('muxer.test').info('line %d', number)\n"
        "exit_process(3)"
    )
    reader, writer = os.pipe()
    try:
        begin = time.monotonic()
        done = subprocess.run([sys.executable, "-c", script], stderr=writer, timeout=TIMEOUT_SECONDS, check=False)
        assert done.returncode == 3 and time.monotonic() - begin < TIMEOUT_SECONDS
    finally:
        os.close(reader)
        os.close(writer)
