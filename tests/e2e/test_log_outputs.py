"""`[logfile] output`: the log on stderr, in the journal, in syslog and in the event log, without secrets everywhere."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support.commands import clean_environment, run_in_process, run_json_in_process
from tests.support.daemon import PACKAGE, PYTHON, MuxerProcess, run_muxer, wait_until
from tests.support.muxer_runs import muxed_entries, write_config
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
MIGRATION = {"advanced__call_recording_query_string": "startTime=0", "logfile__level": "debug"}


def configure_output(lab: Lab, output: str, **options: str) -> Path:
    """Write a configuration whose log folder does not exist, because only the output `file` needs one."""
    config, log = write_config(lab, logfile__output=output, **options)
    config.write_text(re.sub(r"logfile_path = .*", "logfile_path = /no/such/folder", config.read_text()))
    log.parent.rmdir()
    return config


def passwords_of(lab: Lab) -> set[str]:
    return {account.password for account in (lab.site.rws_account, lab.site.rcs_account, lab.site.dav_account)}


@contextmanager
def syslog_service(address: str | tuple[str, int]) -> Iterator[tuple[socket.socket, list[str]]]:
    """Yield the socket of a service that collects what it receives, and the list of it."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    received: list[str] = []
    with socket.socket(family, socket.SOCK_DGRAM) as service:
        service.bind(address)
        service.settimeout(0.2)
        ended = threading.Event()

        def receive() -> None:
            while not ended.is_set():
                try:
                    received.append(service.recv(1 << 20).decode())
                except TimeoutError:
                    continue
                except OSError:
                    return  # a test has closed it

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            yield service, received
        finally:
            ended.set()
            thread.join()


def test_stderr_has_the_whole_log_and_nothing_else(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.ENCRYPTED)
    config = configure_output(lab, "stderr", **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, cwd=tmp_path)
    assert done.process.returncode == 0 and muxed_entries(lab, call.id)
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert lines[0]["message"].startswith("Recording Muxer") and lines[-1]["message"] == "stopped"
    assert {line["level"] for line in lines} >= {"debug", "info"}
    assert not [one for one in passwords_of(lab) if one in done.err]
    assert not list(tmp_path.glob("*.log*"))


def test_refusal_to_start_is_written_to_the_chosen_output(make_lab: Make, tmp_path: Path) -> None:
    config = configure_output(make_lab(), "stderr", advanced__pagination="many")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, cwd=tmp_path)
    assert done.process.returncode == 2 and not list(tmp_path.glob("*.log*"))
    (line,) = [line for line in done.err.splitlines() if "[advanced] pagination = 'many'" in line]
    assert "CRITICAL" in line


def test_refusal_of_a_worker_without_a_fleet_is_in_the_folder_of_the_log(make_lab: Make, tmp_path: Path) -> None:
    config, log = write_config(make_lab())
    line = [PYTHON, "-m", "muxer", "worker", f"--config-file={config}"]
    found = clean_environment(PYTHONPATH=str(PACKAGE.parent))
    done = subprocess.run(line, cwd=tmp_path, env=found, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    text = "[fleet] mode = 'local': must be broker"
    assert done.returncode == 2 and text in done.stderr
    assert not list(tmp_path.glob("*.log*")) and text in (log.parent / "recording-muxer-single.log").read_text()


def test_refusal_goes_to_a_file_when_the_chosen_output_cannot_be_used(make_lab: Make, tmp_path: Path) -> None:
    options = {"logfile__syslog_address": "/no/such/socket", "advanced__pagination": "many"}
    done = run_muxer(configure_output(make_lab(), "syslog", **options), seconds=TIMEOUT_SECONDS, cwd=tmp_path)
    assert done.process.returncode == 2 and "[advanced] pagination = 'many'" in done.err
    assert "[advanced] pagination = 'many'" in (tmp_path / "recording-muxer-single.log").read_text()


def test_journal_gets_each_line_with_its_priority(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    (lab.site.media.folder / "screens" / call.screens[0].media_id).write_bytes(b"rubbish")
    config = configure_output(lab, "journald", **MIGRATION, logfile__format="text")
    reader, writer = os.pipe()
    status = os.fstat(writer)
    process = subprocess.Popen(
        [PYTHON, PACKAGE / "muxer_process.py", f"--config-file={config}"],
        cwd=tmp_path,
        env=clean_environment(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}"),
        stdout=subprocess.DEVNULL,
        stderr=writer,
    )
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as journal:
        lines = journal.read().splitlines()
    assert process.wait(TIMEOUT_SECONDS) == 4
    priorities = {"DEBUG": "<7>", "INFO": "<6>", "WARNING": "<4>", "ERROR": "<3>"}
    found = [re.fullmatch(r"(<\d>)(?:\S+Z (\w+) .*|    .*)", line) for line in lines]
    assert [line for line, match in zip(lines, found, strict=True) if match is None] == []
    assert all(match[1] == priorities[match[2]] for match in found if match and match[2])
    assert {match[2] for match in found if match} >= set(priorities) - {"WARNING"}
    assert not [one for one in passwords_of(lab) if one in "\n".join(lines)]
    assert not list(tmp_path.glob("*.log*"))


def test_journal_is_refused_where_stderr_goes_elsewhere(make_lab: Make, tmp_path: Path) -> None:
    config = configure_output(make_lab(), "journald")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, cwd=tmp_path, env={"JOURNAL_STREAM": "8:1"})
    assert done.process.returncode == 2
    assert "[logfile] output = 'journald': needs the journal of systemd on stderr" in done.err


@pytest.mark.parametrize("kind", spread_variants(["socket", "udp"], 2))
def test_syslog_gets_each_line_with_its_priority(make_lab: Make, tmp_path: Path, kind: str) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    (lab.site.media.folder / "screens" / call.screens[0].media_id).write_bytes(b"rubbish")
    with syslog_service(str(tmp_path / "log") if kind == "socket" else ("127.0.0.1", 0)) as (service, received):
        name = service.getsockname()
        address = name if kind == "socket" else f"127.0.0.1:{name[1]}"
        config = configure_output(lab, "syslog", **MIGRATION, logfile__syslog_address=address)
        done = run_muxer(config, seconds=TIMEOUT_SECONDS, cwd=tmp_path / "..")
        wait_until(lambda: any('"stopped"' in line for line in received), TIMEOUT_SECONDS, "the last line")
        assert run_in_process(config, "status")[1].count(f"log: syslog at {address}, as recording-muxer-single\n") == 1
    assert done.process.returncode == 4
    pattern = rf"<(\d+)>recording-muxer-single\[{done.process.pid}\]: (\{{.*\}})"
    found = [re.fullmatch(pattern, line) for line in received]
    assert all(found), received
    levels = {(json.loads(match[2])["level"], int(match[1]) - 3 * 8) for match in found if match}
    assert {("debug", 7), ("info", 6), ("error", 3)} <= levels <= {("debug", 7), ("info", 6), ("warning", 4), ("error", 3)}
    assert not [one for one in passwords_of(lab) if one in "\n".join(received) + done.err]
    assert f"; log: syslog at {address}, as recording-muxer-single\n" in done.err


def test_a_syslog_service_that_is_restarted_gets_the_lines_after_it(make_lab: Make, tmp_path: Path) -> None:
    address = tmp_path / "log"
    config = configure_output(make_lab(), "syslog", logfile__syslog_address=str(address))
    with syslog_service(str(address)) as (first, received), MuxerProcess(config) as muxer:
        wait_until(lambda: any("poll done" in line for line in received), TIMEOUT_SECONDS, "a poll")
        first.close()
        address.unlink()
        with syslog_service(str(address)) as (_, later):
            wait_until(lambda: any("poll done" in line for line in later), TIMEOUT_SECONDS, "a poll")
            assert muxer.stop() == 0
    assert "Traceback" not in muxer.err and "Logging error" not in muxer.err


@pytest.mark.parametrize(
    ("output", "address", "reason"),
    [
        ("syslog", "/no/such/socket", "[logfile] syslog_address = '/no/such/socket': must be the socket of a running"),
        ("eventlog", "/dev/log", "[logfile] output = 'eventlog': needs Windows, and the package pywin32"),
    ],
)
def test_an_output_that_this_machine_lacks_is_refused(
    make_lab: Make, tmp_path: Path, output: str, address: str, reason: str
) -> None:
    config = configure_output(make_lab(), output, logfile__syslog_address=address)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, cwd=tmp_path)
    assert done.process.returncode == 2
    assert reason in done.err and "Traceback" not in done.err
    assert reason in (tmp_path / "recording-muxer-single.log").read_text()


@pytest.mark.long
def test_an_unknown_syslog_host_does_not_prevent_the_work(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    config = configure_output(lab, "syslog", **MIGRATION, logfile__syslog_address="no.such.host.invalid:514")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0 and muxed_entries(lab, call.id)
    assert done.err.count("syslog at no.such.host.invalid:514 cannot be written, lines are lost") == 1


def test_a_syslog_service_that_does_not_read_does_not_delay_a_stop(make_lab: Make, tmp_path: Path) -> None:
    address, lab = tmp_path / "log", make_lab()
    config = configure_output(lab, "syslog", logfile__level="debug", logfile__syslog_address=str(address))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(address))
        log_room = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        log_room.setblocking(False)
        with log_room, pytest.raises(BlockingIOError):
            while True:
                log_room.sendto(b"full", str(address))
        with MuxerProcess(config) as muxer:
            wait_until((lab.folder / "temp" / "state.json").exists, TIMEOUT_SECONDS, "its work")
            assert muxer.stop() == 0


def test_check_and_status_show_where_the_log_is(make_lab: Make) -> None:
    lab = make_lab()
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until((lab.folder / "temp" / "state.json").exists, TIMEOUT_SECONDS, "its work", log)
        assert run_json_in_process(config, "status")["log"] == f"log file: {log}"
        assert f"\nlog file: {log}\n" in run_in_process(config, "status")[1]
        assert muxer.stop() == 0
    config.write_text(f"{config.read_text()}output = syslog\nsyslog_address = /no/such/socket\n")
    findings = {one["check"]: one for one in json.loads(run_in_process(config, "check", "--json")[1])["checks"]}
    assert "syslog_address = '/no/such/socket'" in findings["log output"]["found"]
