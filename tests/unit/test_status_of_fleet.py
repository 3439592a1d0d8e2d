"""``status`` at the poller of a fleet, and on a machine where only workers run."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from muxer.commands import status
from muxer.commands._shared.running_instance import MAX_DEAD_AGE_SECONDS, MAX_STATE_AGE_SECONDS
from muxer.errors import AccessDenied, MediaNotFound
from muxer.journal.journal import JOURNAL_FILE, Journal, TargetKey
from muxer.pipeline.workspace import LOCK_FILE
from muxer.status import state_file
from muxer.status.activity import PollStatistics
from muxer.status.fleet_status import FleetStatus, fleet_to_dict
from muxer.system.file_lock import acquire_lock
from tests.support.fleet_views import NOW, fleet_view, worker_view
from tests.support.instance_state import new_instance_state
from tests.support.monitoring import create_sources
from tests.support.status_views import running_job


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """Create the temporary folder and the configuration of a poller; return the folder."""
    folder = tmp_path / "temp"
    folder.mkdir(mode=0o700)
    options = {"fleet__mode": "broker", "fleet__broker_url": "amqp://user:secret@host/", "advanced__worker_threads": 4}
    create_sources(tmp_path, processing__temp_dir=folder, **options)
    return folder


def write_state(folder: Path, **changes: Any) -> None:
    """Write the state file of a working process, with `changes`."""
    folder.mkdir(exist_ok=True)
    polls = asdict(PollStatistics(succeeded=1, last_success=time.time()))
    (folder / state_file.STATE_FILE).write_text(json.dumps(new_instance_state(folder) | {"polls": polls} | changes))


def write_poller(folder: Path, view: FleetStatus, **changes: Any) -> None:
    write_state(folder, fleet=fleet_to_dict(view), queued=view.queued, **changes)


def run_status(temp: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = status.main([f"--config-file={temp.parent / 'muxer.cfg'}"])
    return code, capsys.readouterr().out


def run_status_json(temp: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = status.main([f"--config-file={temp.parent / 'muxer.cfg'}", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_poller_shows_the_whole_fleet(temp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at_work = worker_view(running=(running_job("call-1", "mux", 45_000_000, 60_000_000), running_job("call-2", "store")))
    silent = worker_view(1, seen=NOW - 90, out={"RCS": "no answer"}, running=(running_job("call-3", "mux"),))
    lanes = {"recording-muxer": 2, "recording-muxer.today": 40, "recording-muxer.backlog": 0}
    view = fleet_view(at_work, silent, lanes=lanes, dead=3, queued=42, running=2, oldest=NOW - 4000)
    write_poller(temp, view)
    code, shown = run_status(temp, capsys)
    assert code == 0 and shown.startswith("single: runs, version ")
    for line in (
        "fleet: RabbitMQ connected, 1 worker with 4 threads, 120 muxed files per hour",
        "tasks: 42 queued (the oldest for 1 h 7 min), 2 running",
        "queues: recording-muxer 2, recording-muxer.today 40, recording-muxer.backlog 0; dead letters: 3",
        "worker-0/100\thost-0\t2 of 4\t90\t2\t120\trunning",
        "worker-0/101\thost-1\t1 of 4\t90\t2\t120\tsilent, seen 2 min ago; RCS is unavailable: no answer",
        "host-0/worker-0/100\tcall-1\talice\tmux\t1 min\t75 %, 4.5 x real time, 0:03 left",
    ):
        assert f"\n{line}\n" in shown
    assert "call-3" not in shown and "\nqueue: " not in shown
    code, facts = run_status_json(temp, capsys)
    assert (code, facts["state"]["fleet"], facts["workers"]) == (0, json.loads(json.dumps(fleet_to_dict(view))), [])


def test_problems_of_the_fleet_are_shown(temp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_poller(temp, fleet_view(queued=7))
    code, shown = run_status(temp, capsys)
    assert code == 1 and "  ! no worker is running, and 7 muxed files wait for one\n" in shown
    write_poller(temp, fleet_view(connected=False))
    code, shown = run_status(temp, capsys)
    assert code == 1 and "  ! RabbitMQ is not connected: no tasks are distributed to the workers\n" in shown
    assert "queues and dead letters: unknown" in shown
    write_poller(temp, fleet_view(connected=False), out={"RabbitMQ": {"reason": "MUX-201 ServiceUnavailable: no answer"}})
    code, shown = run_status(temp, capsys)
    assert code == 1 and shown.count("  ! ") == 1 and "\nMUX-201: " in shown
    assert "  ! RabbitMQ is unavailable: MUX-201" in shown


def test_a_long_queue_does_not_excuse_the_poller_of_a_fleet(temp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks wait in the broker; polls do not wait for workers."""
    write_poller(temp, fleet_view(worker_view(), queued=100), polls=asdict(PollStatistics(last_success=time.time() - 1000)))
    code, shown = run_status(temp, capsys)
    assert code == 1 and re.search(r"  ! no poll has succeeded for 10\d\d s\n", shown), shown


def test_a_malformed_fleet_is_ignored(temp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_state(temp, fleet={"at": "now"})
    code, shown = run_status(temp, capsys)
    assert code == 0 and "fleet:" not in shown and "queue: 0, running: 0 of 4 workers" in shown


def test_a_machine_of_workers_shows_them(temp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = asdict(running_job("call-1", "mux")) | {"begun": time.time() - 60, "step_begun": time.time() - 10}
    totals = new_instance_state(None)["totals"] | {"outcomes": {"muxed": 30, "failed": 1}}
    write_state(temp / "worker-0", running=[running], totals=totals, pid=123, polls=asdict(PollStatistics()))
    write_state(temp / "worker-10", pid=125, polls=asdict(PollStatistics()))
    write_state(temp / "worker-2", pid=124, polls=asdict(PollStatistics()), started=time.time() - 99_999)
    (temp / "worker-3").mkdir()
    code, shown = run_status(temp, capsys)
    assert code == 0 and shown.startswith("single: only workers on this machine\nworker\tversion")
    rows = [line.split("\t") for line in shown.splitlines() if line.startswith("worker-")]
    assert [row[0] for row in rows] == ["worker-0", "worker-2", "worker-10", "worker-0"], "the last one is running"
    assert rows[0][2:] == ["123", "just now", "1 of 4", "30", "1", "runs"] and rows[3][1:4] == ["call-1", "alice", "mux"]
    assert "no instance runs" not in shown and "no poll" not in shown and "journal" not in shown
    code, facts = run_status_json(temp, capsys)
    assert (code, facts["standing"], facts["trouble"]) == (0, "does not run", [])
    assert [(worker["name"], worker["standing"], worker["state"]["pid"]) for worker in facts["workers"]] == [
        ("worker-0", "runs", 123),
        ("worker-2", "runs", 124),
        ("worker-10", "runs", 125),
    ]


def test_a_worker_that_died_or_hangs_or_waits_is_shown(temp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = time.time() - MAX_STATE_AGE_SECONDS - 10
    write_state(temp / "worker-0", at=old)
    write_state(temp / "worker-1", at=old)
    write_state(temp / "worker-2", out={"RabbitMQ": {"reason": "MUX-201 ServiceUnavailable: no answer"}})
    write_state(temp / "worker-3", at=time.time() - MAX_DEAD_AGE_SECONDS - 1)
    with acquire_lock(temp / "worker-1" / LOCK_FILE, temp, "temp_dir"):
        code, shown = run_status(temp, capsys)
    assert code == 1
    assert "  ! worker-0: the process died" in shown
    assert "  ! worker-1: process " in shown and "has not responded for 40 s" in shown
    assert "  ! worker-2: RabbitMQ is unavailable: MUX-201" in shown and "\nMUX-201: " in shown
    assert "worker-3" not in shown, "it was seen too long ago"


def test_a_poller_that_died_next_to_its_workers_is_shown_with_them(temp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    polls = asdict(PollStatistics(last_success=time.time(), next_due=time.time() + 60))
    write_poller(temp, fleet_view(worker_view()), at=time.time() - MAX_STATE_AGE_SECONDS - 10, polls=polls)
    write_state(temp / "worker-0")
    code, shown = run_status(temp, capsys)
    assert code == 1 and shown.startswith("single: died") and "  ! the process died" in shown
    assert "next poll" not in shown and "fleet:" not in shown, "its plans are void"
    assert "\nworker-0\t" in shown


def test_without_a_fleet_folders_of_workers_are_ignored(
    temp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state(temp / "worker-0")
    create_sources(tmp_path, processing__temp_dir=temp)
    code, shown = run_status(temp, capsys)
    assert code == 1 and "  ! no instance runs with " in shown and "worker-0" not in shown


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"whole_due": 1}, ["whole window: not read yet, due at the next poll"]),
        ({"reach": 6000, "whole_success": -600, "whole_due": 1800}, ["whole window: read 10 min ago, due in 30 min"]),
    ],
)
def test_status_shows_when_the_whole_window_is_read(
    temp: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, int],
    lines: list[str],
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    at = {name: value if name == "reach" else now + value for name, value in changes.items()}
    write_poller(temp, fleet_view(), polls=asdict(PollStatistics(succeeded=1, last_success=now, seconds=2, **at)))
    shown = run_status(temp, capsys)[1].splitlines()
    assert [line for line in shown if line.startswith("whole window")] == lines
    assert "if there are call recordings in the window, run `check`, which shows the cause" in shown
    assert ("last poll: just now, took 2 s, read the last 1 h 40 min of the window: found nothing" in shown) == (
        "reach" in changes
    )
    assert run_status_json(temp, capsys)[1]["state"]["polls"]["whole_due"] == at.get("whole_due")


def test_the_counts_are_explained(
    temp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create_sources(tmp_path, processing__temp_dir=temp)
    result = {"found": 5, "ours": 2, "without_screen": 1, "skipped": 1, "already_done": 3, "submitted": 1, "waiting": 4}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    polls = PollStatistics(succeeded=1, last_success=now, result=result, oldest_open=now - 7200, next_due=now + 120)
    write_state(temp, polls=asdict(polls), out={"RCS": {"reason": "MUX-201 ServiceUnavailable: no answer"}})
    journal = Journal(temp / JOURNAL_FILE)
    journal.record_wanted(TargetKey("a", "C1"), now)
    for name, error in (("b", AccessDenied("no right")), ("c", MediaNotFound("not there"))):
        journal.record_failure(TargetKey(name, "C2"), error, now)
    journal.close()
    code, shown = run_status(temp, capsys)
    assert code == 1
    for text in (
        "5 call recordings found, 2 of them of this instance, 1 without a screen recording, 1 skipped because RWS fails for "
        "them, 3 muxed files exist already, 1 muxed files queued, 4 in progress, waiting or set aside\n",
        "\nnext poll: in 2 min, it tries again what is unavailable\n",
        "\noldest call without its muxed file, as the last poll found it: started ",
        "\nlast hour: 0 muxed, 2 failed and not muxed since; 0.0 h of media, 0 MB written\n",
        "\nmuxed files in the journal: 1 not started yet, 2 failed and retried automatically\n",
        "\n1\tMUX-211\tretried; waits for a correction\n",
        "\n1\tMUX-221\tretried automatically\n",
    ):
        assert text in shown, text
    write_state(temp, polls=asdict(polls), out={"RabbitMQ": {"reason": "MUX-201 ServiceUnavailable: no answer"}})
    assert "\nnext poll: in 2 min\n" in run_status(temp, capsys)[1]
    write_state(temp, polls=asdict(replace(polls, result=result | {"ours": 5})))
    assert "of this instance" not in run_status(temp, capsys)[1]
    write_state(temp, polls=asdict(replace(polls, next_due=None, begun=now - 30)))
    assert "\na poll is running, started 30 s ago\n" in run_status(temp, capsys)[1]
