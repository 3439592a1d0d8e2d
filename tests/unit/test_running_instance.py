"""How `status` examines an instance: by its lock and its state file, even a malformed one."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muxer.commands._shared.running_instance import (
    DIED,
    DOWN,
    HANGS,
    MAX_STATE_AGE_SECONDS,
    RUNS,
    find_instance,
    instance_problems,
)
from muxer.config.schema import Config
from muxer.errors import PathForbidden
from muxer.journal.journal import JOURNAL_FILE, Journal, TargetKey
from muxer.pipeline.workspace import LOCK_FILE
from muxer.status import state_file
from muxer.status.activity import PollStatistics
from muxer.status.poll_age import overdue_seconds
from muxer.system.file_lock import acquire_lock
from tests.support.instance_state import new_instance_state
from tests.support.monitoring import create_sources


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "temp").mkdir(mode=0o700)
    return create_sources(tmp_path, processing__temp_dir=tmp_path / "temp", processing__min_poll_interval=5).config


def write_state(config: Config, **changes: Any) -> None:
    """Write the state file of a working instance, with `changes`."""
    folder = config.processing.temp_dir
    assert folder is not None
    (folder / state_file.STATE_FILE).write_text(json.dumps(new_instance_state(folder) | changes))


def test_an_instance_with_a_fresh_state_file_runs(config: Config) -> None:
    assert (find_instance(config).standing, instance_problems(find_instance(config), config)) == (
        DOWN,
        [f"no instance runs with {config.processing.temp_dir}; the log says why, if a start was refused"],
    )
    write_state(config)
    assert find_instance(config).standing == RUNS
    assert instance_problems(find_instance(config), config) == []


def test_an_instance_whose_uploads_are_all_refused_does_not_work(config: Config) -> None:
    assert config.processing.temp_dir is not None
    write_state(config)
    journal = Journal(config.processing.temp_dir / JOURNAL_FILE)
    for number in range(3):
        journal.record_failure(TargetKey(f"{number}_muxed.mp4", f"call-{number}"), PathForbidden("403"), time.time())
    [problem] = instance_problems(find_instance(config), config)
    assert problem.startswith("3 recordings wait for a correction (MUX-214: ") and problem.endswith("muxed yet")
    migration = replace(config, advanced=replace(config.advanced, call_recording_query_string="limit=1"))
    assert instance_problems(find_instance(config), migration) == [], "it does not write this journal"


def test_an_instance_with_an_old_state_file_hangs_while_its_lock_is_held(config: Config) -> None:
    """The process id is that of this test: another process may have reused the id, so it proves nothing."""
    assert config.processing.temp_dir is not None
    write_state(config, at=time.time() - MAX_STATE_AGE_SECONDS - 5)
    assert find_instance(config).standing == DIED
    with acquire_lock(config.processing.temp_dir / LOCK_FILE, config.processing.temp_dir, "temp_dir"):
        assert find_instance(config).standing == HANGS
        assert "has not responded for 35 s" in instance_problems(find_instance(config), config)[0]
    assert find_instance(config).standing == DIED


def test_a_killed_instance_is_noticed_at_once_by_its_lock(config: Config) -> None:
    """The state file of a process that was killed is still fresh. The lock file may have been removed by a cleaner."""
    assert config.processing.temp_dir is not None
    write_state(config)
    lock = config.processing.temp_dir / LOCK_FILE
    with acquire_lock(lock, config.processing.temp_dir, "temp_dir"):
        assert find_instance(config).standing == RUNS
    assert find_instance(config).standing == DIED
    assert instance_problems(find_instance(config), config) == ["the process died; start it again, no recording is lost"]
    lock.unlink()
    assert find_instance(config).standing == RUNS


def test_an_instance_whose_lock_cannot_be_read_counts_as_alive(config: Config) -> None:
    assert config.processing.temp_dir is not None
    write_state(config, at=time.time() - MAX_STATE_AGE_SECONDS - 5)
    (config.processing.temp_dir / LOCK_FILE).mkdir()
    assert find_instance(config).standing == HANGS


@pytest.mark.parametrize(
    "name", [*sorted(new_instance_state(None).keys() - {"fleet", "log", "http_port"}), "last_success", "reason"]
)
def test_an_incomplete_state_file_is_ignored(config: Config, name: str) -> None:
    assert config.processing.temp_dir is not None
    whole = new_instance_state(config.processing.temp_dir)
    whole["out"] = {"RWS": {"reason": "no answer"}}
    for part in (whole, whole["polls"], whole["out"]["RWS"]):
        part.pop(name, None)
    (config.processing.temp_dir / state_file.STATE_FILE).write_text(json.dumps(whole))
    assert find_instance(config).state is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "3", '{"at": 1}', '{"at": "now"}', json.dumps(new_instance_state(None) | {"running": [{}]})],
)
def test_a_malformed_state_file_is_ignored(config: Config, text: str) -> None:
    assert config.processing.temp_dir is not None
    (config.processing.temp_dir / state_file.STATE_FILE).write_text(text)
    assert find_instance(config).standing == DOWN


def test_the_last_poll_is_too_old_after_three_intervals_and_its_own_time() -> None:
    def age_at(now: float, interval: float = 300, *, took: float = 0, is_busy: bool = False) -> float | None:
        return overdue_seconds(1000, took, 1000 + now, interval, is_busy=is_busy)

    assert (age_at(900), age_at(901), age_at(901, is_busy=True)) == (None, 901, None)
    assert (age_at(1000, took=100), age_at(1001, took=100)) == (None, 1001)
    assert (age_at(180, 0.6), age_at(181, 0.6)) == (None, 181)


def test_an_instance_that_does_not_poll_has_a_problem_and_a_migration_has_none(config: Config) -> None:
    old = vars(replace(PollStatistics(), last_success=time.time() - 910, error="no answer"))
    write_state(config, polls=old)
    assert instance_problems(find_instance(config), config) == ["no poll has succeeded for 910 s: no answer"]
    write_state(config, polls=old | {"whole_seconds": 60.0})  # the poll that runs may be one over the whole window
    assert instance_problems(find_instance(config), config) == []
    write_state(config, polls=old | {"progress": 60.0})  # the running poll takes longer than any before it
    assert instance_problems(find_instance(config), config) == []
    write_state(config, polls=old, queued=3)
    assert instance_problems(find_instance(config), config) == []
    write_state(config, started=time.time() - 910)
    assert instance_problems(find_instance(config), config) == ["no poll has succeeded for 910 s"]
    migration = replace(config, advanced=replace(config.advanced, call_recording_query_string="limit=1"))
    assert instance_problems(find_instance(config), migration) == []


def test_a_cause_is_shown_once(config: Config) -> None:
    """The last request may have failed with another text than the one that shows why the service is unavailable."""
    reason = "MUX-212 AuthenticationFailed: RWS GET /recordings: HTTP 401"
    out = {"RWS": {"reason": reason, "reached": True}}
    error = "MUX-212 AuthenticationFailed: RWS refused the credentials a moment ago"
    polls = vars(PollStatistics(failed=2, last_success=time.time(), error=error))
    for name, problems in (("RWS", 1), ("RCS", 2)):
        write_state(config, polls=polls, out={name: out["RWS"]})
        assert len(instance_problems(find_instance(config), config)) == problems
    write_state(config, polls=polls | {"error": "MUX-201 ServiceUnavailable: RWS GET /"}, out=out)
    assert len(instance_problems(find_instance(config), config)) == 2


def test_a_full_disk_is_explained(config: Config) -> None:
    write_state(config, disk_has_room=False)
    [problem] = instance_problems(find_instance(config), config)
    assert "no new recording is started; " in problem and f"B are free in {config.processing.temp_dir}: make room" in problem
    assert "[processing] min_free_megabytes" in problem
