"""The threads that call `[alerts] command`: events wait up to a limit, and those beyond it are counted."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from muxer.app import alert_hook
from muxer.app.alert_hook import AlertHook
from muxer.errors import PathForbidden
from muxer.journal.journal import Journal, TargetKey
from muxer.journal.retry_policy import classify_error
from tests.support.daemon import wait_until
from tests.support.monitoring import create_sources

TIMEOUT_SECONDS = 60


def write_waiting_hook(folder: Path) -> Path:
    """Write a program that stores its events, each after a file `go` exists."""
    path = folder / "hook"
    path.write_text(
        f'#!/bin/sh\ncat >"{folder}/begun"; until [ -e "{folder}/go" ]; do sleep 0.05; done\n'
        f'cat "{folder}/begun" >>"{folder}/events"\n'
    )
    path.chmod(0o755)
    return path


def read_events(folder: Path) -> list[dict[str, object]]:
    path = folder / "events"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(hook: AlertHook, number: int) -> None:
    hook.report_set_aside(TargetKey(f"{number}_muxed.mp4", f"{number}" * 5000), classify_error(ValueError("broken")))


@pytest.mark.posix
def test_events_beyond_the_limit_are_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_hook, "MAX_WAITING_EVENTS", 3)
    hook = AlertHook(create_sources(tmp_path, alerts__command=str(write_waiting_hook(tmp_path))))
    hook.start()
    report(hook, 0)
    wait_until(lambda: (tmp_path / "begun").exists(), TIMEOUT_SECONDS, "the first call")
    for number in range(1, 9):  # never waits, although the program does
        report(hook, number)
    (tmp_path / "go").touch()
    wait_until(lambda: len(read_events(tmp_path)) == 4, TIMEOUT_SECONDS, "the calls")
    hook.close()
    events = read_events(tmp_path)
    assert [str(event["recording"])[0] for event in events] == ["0", "1", "2", "3"], "the oldest are kept, in order"
    assert [event["lost"] for event in events] == [0, 5, 0, 0]
    assert all(len(str(event["recording"])) == alert_hook.MAX_TEXT_LENGTH for event in events), "ids have a limit"


@pytest.mark.posix
@pytest.mark.parametrize("query", ["", "startTime=0"])
def test_a_stop_does_not_wait_for_a_program_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    monkeypatch.setattr(alert_hook, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(alert_hook, "CLOSE_MIGRATION_SECONDS", float("inf"))  # An error if it is used.
    options = {"alerts__command": str(write_waiting_hook(tmp_path)), "advanced__call_recording_query_string": query}
    hook = AlertHook(create_sources(tmp_path, **options))
    hook.start()
    report(hook, 0)
    wait_until(lambda: (tmp_path / "begun").exists(), TIMEOUT_SECONDS, "the call")
    hook.close()
    assert read_events(tmp_path) == []


@pytest.mark.posix
def test_a_program_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alert_hook, "COMMAND_TIMEOUT_SECONDS", 0.2)
    hook = AlertHook(create_sources(tmp_path, alerts__command=str(write_waiting_hook(tmp_path))))
    hook.start()
    for number in range(3):
        report(hook, number)
    wait_until(lambda: "took longer than its time limit" in caplog.text, TIMEOUT_SECONDS, "the warning")
    hook.close()
    assert caplog.text.count("[alerts] command failed") == 1, "one warning an hour"


@pytest.mark.posix
def test_the_program_gets_the_proxies_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("pager_token", "secret")
    path = tmp_path / "hook"
    path.write_text(f'#!/bin/sh\nenv >"{tmp_path}/new"; mv "{tmp_path}/new" "{tmp_path}/variables"\n')
    path.chmod(0o755)
    hook = AlertHook(create_sources(tmp_path, alerts__command=str(path)))
    hook.start()
    report(hook, 0)
    wait_until((tmp_path / "variables").exists, TIMEOUT_SECONDS, "the call")
    hook.close()
    variables = (tmp_path / "variables").read_text()
    assert "https_proxy=http://proxy:3128\n" in variables and "MUXER_ALERT=" in variables and "pager_token" not in variables


@pytest.mark.posix
def test_a_storage_that_refuses_every_upload_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_hook, "WATCH_INTERVAL", 0.02)
    command, path = write_waiting_hook(tmp_path), tmp_path / "journal.sqlite3"
    (tmp_path / "go").touch()
    journal = Journal(path)
    for call in ("call-a", "call-b", "call-c"):
        journal.record_failure(TargetKey(f"{call}_muxed.mp4", call), PathForbidden("403"), time.time())
    sources = create_sources(tmp_path, alerts__command=str(command), alerts__service_minutes=0)
    hook = AlertHook(replace(sources, journal=path))
    hook.start()
    wait_until(lambda: read_events(tmp_path), TIMEOUT_SECONDS, "the event")
    hook.close()
    assert [(event["event"], event["code"]) for event in read_events(tmp_path)] == [("correction_needed", "MUX-214")]
