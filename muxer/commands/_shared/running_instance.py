"""The running instance that a command is about, looked at from outside: its folder, its state file, its journal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muxer.config.schema import Config
from muxer.journal.journal import JOURNAL_FILE
from muxer.pipeline.shared_temp import WORKER_PREFIX
from muxer.pipeline.workspace import LOCK_FILE, temp_folder_for
from muxer.status import state_file
from muxer.status.fleet_status import fleet_from_dict
from muxer.status.fleet_status import fleet_problems as trouble_of_fleet
from muxer.status.poll_age import overdue_seconds
from muxer.system.file_lock import lock_holder

# The state file is written every two seconds; a busy machine may be late.
MAX_STATE_AGE_SECONDS = 30.0
# A worker that has died is told for a day: the next one on this machine takes over its folder.
MAX_DEAD_AGE_SECONDS = 86_400.0
NO_JOURNAL = "there is no journal at {}: has this instance run, with this temp_dir?"
RUNS, HANGS, DIED, DOWN = "runs", "hangs", "died", "does not run"


@dataclass(frozen=True)
class RunningInstance:
    """An instance by its configuration: whether it :attr:`runs <standing>`, and what it says of itself (None = nothing)."""

    folder: Path
    standing: str
    state: dict[str, Any] | None

    @property
    def journal_path(self) -> Path:
        """Where its journal lies."""
        return self.folder / JOURNAL_FILE


def find_instance(config: Config) -> RunningInstance:
    """Given a configuration, look at the instance that runs with it."""
    return _read_instance(temp_folder_for(config.processing.temp_dir, config.instance_name))


def find_local_workers(config: Config) -> tuple[RunningInstance, ...]:
    """Given a configuration, look at the workers of its fleet that run on this machine, or have died there lately."""
    if not config.is_fleet:
        return ()
    folders = temp_folder_for(config.processing.temp_dir, config.instance_name).glob(f"{WORKER_PREFIX}*")
    found = (_read_instance(folder) for folder in sorted(folders, key=lambda one: (len(one.name), one.name)))
    return tuple(one for one in found if one.state is not None and time.time() - one.state["at"] < MAX_DEAD_AGE_SECONDS)


def _read_instance(folder: Path) -> RunningInstance:
    found = state_file.read_state(folder)
    if found is None:
        return RunningInstance(folder, DOWN, None)
    if time.time() - found["at"] <= MAX_STATE_AGE_SECONDS:
        return RunningInstance(folder, RUNS, found)
    return RunningInstance(folder, HANGS if _is_held(folder) else DIED, found)


def instance_problems(instance: RunningInstance, config: Config) -> list[str]:
    """Given an instance, return what is wrong with it, most important first; nothing when it is at its work."""
    if instance.state is None or instance.standing == DIED:
        return process_problems(instance)
    fleet = fleet_from_dict(instance.state.get("fleet"))
    of_fleet = () if fleet is None else trouble_of_fleet(fleet, instance.state["out"])
    return [*process_problems(instance), *of_fleet, *_poll_problems(instance.state, config, fleet is not None)]


def process_problems(instance: RunningInstance) -> list[str]:
    """Given an instance, or a worker, return what is wrong with it beside its polls."""
    if instance.state is None:
        return [f"no instance runs with {instance.folder}"]
    if instance.standing == DIED:
        return ["the process has died without a stop; start it again, nothing is lost"]
    found, reasons = instance.state, []
    if instance.standing == HANGS:
        silent = time.time() - found["at"]
        reasons.append(f"process {found['pid']} has said nothing for {silent:.0f} s; see its log, and restart it")
    reasons += [f"{name} is out: {one['reason']}" for name, one in found["out"].items()]
    if not found["disk_has_room"]:
        reasons.append("the disk of temp_dir is nearly full: no new recording is begun")
    return reasons


def _poll_problems(found: dict[str, Any], config: Config, is_fleet: bool) -> list[str]:
    """Return whether the last poll is too old. One that waits for workers leaves a queue; that of a fleet keeps no poll."""
    if config.advanced.call_recording_query_string:  # a migration has no polls
        return []
    polls, interval = found["polls"], config.processing.min_poll_interval * 60
    last = found["started"] if polls["last_success"] is None else polls["last_success"]
    is_busy = found["queued"] > 0 and not is_fleet
    late = overdue_seconds(last, polls["seconds"], time.time(), interval, is_busy=is_busy)
    error = f": {polls['error']}" if polls["error"] else ""
    return [] if late is None else [f"no poll has succeeded for {late:.0f} s{error}"]


def _is_held(folder: Path) -> bool:
    """Whether a process holds a folder: its lock ends with it. One that cannot be looked at counts as held."""
    try:
        return lock_holder(folder / LOCK_FILE) is not None
    except OSError:
        return True
