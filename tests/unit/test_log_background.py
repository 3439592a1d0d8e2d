"""No output of the log stops the muxer: lines are lost when it hangs, which is reported once."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

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
