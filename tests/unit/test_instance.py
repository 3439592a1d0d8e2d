"""How ``status`` sees an instance from outside: by its lock and its state file, whatever stands in that."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.instance import told
from tests.support.monitoring import made_sources

from muxer import state
from muxer.activity import Polls
from muxer.commands.instance import DIED, DOWN, FRESH_SECONDS, HANGS, RUNS, look, trouble
from muxer.config.schema import Config
from muxer.lock import lock
from muxer.monitoring.lateness import lateness
from muxer.workspace import LOCK


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "temp").mkdir(mode=0o700)
    return made_sources(tmp_path, processing__temp_dir=tmp_path / "temp", processing__min_poll_interval=5).config


def write(config: Config, **changes: Any) -> None:
    """Let an instance tell how it stands; ``changes`` stand in its state file in place of what it says."""
    folder = config.processing.temp_dir
    assert folder is not None
    (folder / state.STATE).write_text(json.dumps(told(folder) | changes))


def test_one_that_has_just_spoken_runs(config: Config) -> None:
    assert (look(config).standing, trouble(look(config), config)) == (
        DOWN,
        [f"no instance runs with {config.processing.temp_dir}"],
    )
    write(config)
    assert look(config).standing == RUNS
    assert trouble(look(config), config) == []


def test_a_silent_one_hangs_while_its_lock_is_held_whoever_has_its_process_id(config: Config) -> None:
    """The process id is that of this test, which lives: an id tells nothing, it may be another process by now."""
    assert config.processing.temp_dir is not None
    write(config, at=time.time() - FRESH_SECONDS - 5)
    assert look(config).standing == DIED
    with lock(config.processing.temp_dir / LOCK, config.processing.temp_dir, "temp_dir"):
        assert look(config).standing == HANGS
        assert "has said nothing for 35 s" in trouble(look(config), config)[0]
    assert look(config).standing == DIED


def test_one_whose_lock_cannot_be_looked_at_counts_as_alive(config: Config) -> None:
    assert config.processing.temp_dir is not None
    write(config, at=time.time() - FRESH_SECONDS - 5)
    (config.processing.temp_dir / LOCK).mkdir()
    assert look(config).standing == HANGS


@pytest.mark.parametrize("name", [*sorted(told(None).keys() - {"fleet"}), "last_success", "reason"])
def test_a_state_file_that_lacks_something_is_none(config: Config, name: str) -> None:
    assert config.processing.temp_dir is not None
    whole = told(config.processing.temp_dir)
    whole["out"] = {"RWS": {"reason": "no answer"}}
    for part in (whole, whole["polls"], whole["out"]["RWS"]):
        part.pop(name, None)
    (config.processing.temp_dir / state.STATE).write_text(json.dumps(whole))
    assert look(config).state is None


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", '{"at": 1}', '{"at": "now"}', json.dumps(told(None) | {"running": [{}]})]
)
def test_a_state_file_of_another_form_is_none(config: Config, text: str) -> None:
    assert config.processing.temp_dir is not None
    (config.processing.temp_dir / state.STATE).write_text(text)
    assert look(config).standing == DOWN


def test_the_last_poll_is_too_old_after_three_intervals_and_its_own_time() -> None:
    def late(now: float, interval: float = 300, *, took: float = 0, is_busy: bool = False) -> float | None:
        return lateness(1000, took, 1000 + now, interval, is_busy=is_busy)

    assert (late(900), late(901), late(901, is_busy=True)) == (None, 901, None)
    assert (late(1000, took=100), late(1001, took=100)) == (None, 1001)
    assert (late(180, 0.6), late(181, 0.6)) == (None, 181)


def test_an_instance_that_does_not_poll_is_in_trouble_and_a_migration_is_not(config: Config) -> None:
    old = vars(replace(Polls(), last_success=time.time() - 910, error="no answer"))
    write(config, polls=old)
    assert trouble(look(config), config) == ["no poll has succeeded for 910 s: no answer"]
    write(config, polls=old, queued=3)
    assert trouble(look(config), config) == []
    write(config, started=time.time() - 910)
    assert trouble(look(config), config) == ["no poll has succeeded for 910 s"]
    migration = replace(config, advanced=replace(config.advanced, call_recording_query_string="limit=1"))
    assert trouble(look(config), migration) == []
