"""SIGHUP and log files that other programs rotate: every process goes on, and its log file is there again."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support import commands
from tests.support.daemon import PACKAGE, PYTHON, MuxerProcess, log_lines, wait_until
from tests.support.fake_program import write_waiting
from tests.support.fleet_processes import FleetProcesses
from tests.support.muxer_runs import (
    hanging_mark,
    labelled_ids,
    log_messages,
    muxed_entries,
    write_config,
    write_slow_program,
)
from tests.support.queues import VirtualHost
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}
HANGUP_LINE = (
    "SIGHUP received: the log file is open again; the configuration is read at the start only, restart to apply changes"
)


def hang_up(process: subprocess.Popen[str], log: Path) -> None:
    """Send SIGHUP to a process that works, and wait for its line."""
    wait_until(lambda: any("temporary files" in text for text in log_messages(log)), TIMEOUT_SECONDS, "the start", log)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: HANGUP_LINE in log_messages(log), TIMEOUT_SECONDS, "the line", log)


def test_hangup_after_a_rotation_opens_a_new_file_and_loses_no_line(make_lab: Make) -> None:
    lab = make_lab()
    config, log = write_config(lab)
    rotated = log.with_name("rotated.log")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        log.rename(rotated)
        muxer.process.send_signal(signal.SIGHUP)
        wait_until(lambda: HANGUP_LINE in log_messages(log), TIMEOUT_SECONDS, "the line", log)
        (call,) = lab.add_case(Case.PLAIN)
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
        assert muxer.stop() == 0
    lines = [line for path in (rotated, log) for line in log_lines(path)]
    assert lines[0]["message"].endswith(f"process {muxer.process.pid}") and lines[-1]["message"] == "stopped"
    assert log_messages(log)[0] == HANGUP_LINE and HANGUP_LINE not in log_messages(rotated)


@pytest.mark.parametrize("how", spread_variants(["renamed", "deleted"], 2))
def test_a_log_file_that_is_gone_is_created_again_without_a_signal(make_lab: Make, how: str) -> None:
    """At level warning no line is written, so only the muxer itself can create the file."""
    config, log = write_config(make_lab(), logfile__level="warning")
    with MuxerProcess(config) as muxer:
        wait_until(log.exists, TIMEOUT_SECONDS, "the start")
        wait_until(lambda: (log.parent.parent / "temp" / "state.json").exists(), TIMEOUT_SECONDS, "its work")
        if how == "renamed":
            log.rename(log.with_suffix(".old"))
        else:
            log.unlink()
        wait_until(log.exists, TIMEOUT_SECONDS, "the new file")
        assert muxer.stop() == 0
    assert muxer.err.count("\n") == 1, muxer.err


def test_a_log_file_that_is_copied_and_truncated_has_no_hole(make_lab: Make) -> None:
    config, log = write_config(make_lab(), logfile__max_bytes="0")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        os.truncate(log, 0)
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "the next poll", log)
        assert muxer.stop() == 0
    assert b"\0" not in log.read_bytes() and log_messages(log)[-1] == "stopped"
    assert not log.with_name(f"{log.name}.1").exists()


@pytest.mark.long
def test_hangup_of_a_log_folder_that_is_gone_ends_nothing(make_lab: Make) -> None:
    config, log = write_config(make_lab())
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        log.parent.rename(log.parent.with_name("away"))
        muxer.process.send_signal(signal.SIGHUP)
        log.parent.mkdir()
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll in the new folder", log)
        assert muxer.stop() == 0
    assert "Traceback" not in muxer.err


@pytest.mark.long
def test_hangup_does_not_end_a_migration(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    slow = write_waiting(tmp_path, "ffmpeg", "*excerpts*")
    config, log = write_config(lab, **MIGRATION, processing__ffmpeg=str(slow))
    with MuxerProcess(config) as muxer:
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "the mux", log)
        muxer.process.send_signal(signal.SIGHUP)
        wait_until(lambda: HANGUP_LINE in log_messages(log), TIMEOUT_SECONDS, "the line", log)
        (tmp_path / "go").touch()
        assert muxer.wait(TIMEOUT_SECONDS) == 0
    assert muxed_entries(lab, call.id) and muxer.out.startswith("migration done")


def test_a_migration_goes_on_when_its_terminal_is_closed(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    slow = write_waiting(tmp_path, "ffmpeg", "*excerpts*")
    config, log = write_config(lab, **MIGRATION, processing__ffmpeg=str(slow))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [PYTHON, "muxer_process.py", f"--config-file={config}"],
        cwd=PACKAGE,
        env=commands.clean_environment(),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0) and None,
    )
    os.close(slave)
    with process:
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "the mux", log)
        os.close(master)
        wait_until(lambda: HANGUP_LINE in log_messages(log), TIMEOUT_SECONDS, "the line", log)
        (tmp_path / "go").touch()
        assert process.wait(TIMEOUT_SECONDS) == 0
    assert muxed_entries(lab, call.id) and log_messages(log)[-1] == "stopped"


def test_hangup_does_not_end_a_poller_or_a_worker(make_lab: Make, vhost: VirtualHost) -> None:
    lab = make_lab()
    with FleetProcesses(lab, vhost.url) as crew:
        members = {crew.log: crew.start_poller()}
        worker = crew.start_worker()
        wait_until(lambda: crew.worker_logs, TIMEOUT_SECONDS, "the log of the worker")
        members[crew.worker_logs[0]] = worker
        for log, member in members.items():
            hang_up(member.process, log)
        (call,) = lab.add_case(Case.PLAIN)
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", crew.log)
        assert [member.stop() for member in members.values()] == [0, 0]


def test_hangup_does_not_end_a_command(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    slow = write_slow_program(lab.folder, "ffmpeg")
    config, _ = write_config(lab, processing__ffmpeg=str(slow))
    process = commands.start_command(config, "mux", call.id)
    wait_until(hanging_mark(slow).exists, TIMEOUT_SECONDS, "the mux")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
