"""Finds the running instance of a configuration by its folder, state file and lock, and lists its problems."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muxer.config.schema import Config
from muxer.journal.correction_need import find_correction_need
from muxer.journal.history import read_failures_since_muxed
from muxer.journal.journal import JOURNAL_FILE
from muxer.pipeline.shared_temp import WORKER_PREFIX
from muxer.pipeline.workspace import LOCK_FILE, temp_folder_for
from muxer.status import state_file
from muxer.status.fleet_status import fleet_from_dict, fleet_problems
from muxer.status.formatting import format_megabytes
from muxer.status.poll_age import expected_seconds, overdue_seconds
from muxer.status.service_state import UNREACHED_TEXT
from muxer.system import files
from muxer.system.file_lock import lock_holder

# The state file is written every two seconds; a busy machine may delay that.
MAX_STATE_AGE_SECONDS = 30.0
# A worker that died is shown for a day, unless the next one on this machine adopts its folder.
MAX_DEAD_AGE_SECONDS = 86_400.0
NO_JOURNAL = "there is no journal at {}: has this instance run with this temp_dir?"
RUNS, HANGS, DIED, DOWN = "runs", "hangs", "died", "does not run"


@dataclass(frozen=True)
class RunningInstance:
    """An instance or a worker. `standing` is one of the constants above; `state` is None without a state file."""

    folder: Path
    standing: str
    state: dict[str, Any] | None

    @property
    def journal_path(self) -> Path:
        """The path of its journal."""
        return self.folder / JOURNAL_FILE


def find_instance(config: Config) -> RunningInstance:
    """Return the instance of a configuration."""
    return _read_instance(temp_folder_for(config.processing.temp_dir, config.instance_name))


def find_local_workers(config: Config) -> tuple[RunningInstance, ...]:
    """Return the workers of the fleet that run on this machine or died within a day."""
    if not config.is_fleet:
        return ()
    folders = temp_folder_for(config.processing.temp_dir, config.instance_name).glob(f"{WORKER_PREFIX}*")
    workers = map(_read_instance, sorted(folders, key=lambda folder: (len(folder.name), folder.name)))
    oldest = time.time() - MAX_DEAD_AGE_SECONDS
    return tuple(worker for worker in workers if worker.state is not None and worker.state["at"] > oldest)


def _read_instance(folder: Path) -> RunningInstance:
    state = state_file.read_state(folder)
    if state is None:
        return RunningInstance(folder, DOWN, None)
    is_fresh = time.time() - state["at"] <= MAX_STATE_AGE_SECONDS
    # A cleaner of /tmp may have removed the lock file of a process that runs.
    if not _is_held(folder) and not (is_fresh and not files.exists(folder / LOCK_FILE)):
        return RunningInstance(folder, DIED, state)
    return RunningInstance(folder, RUNS if is_fresh else HANGS, state)


def instance_problems(instance: RunningInstance, config: Config) -> list[str]:
    """Return the problems of an instance, the most important first; none when it works."""
    if instance.state is None or instance.standing == DIED:
        return process_problems(instance)
    fleet = fleet_from_dict(instance.state.get("fleet"))
    in_fleet = () if fleet is None else fleet_problems(fleet, instance.state["out"])
    polls = _poll_problems(instance.state, config, fleet is not None)
    return [*process_problems(instance), *in_fleet, *polls, *_correction_problems(instance, config)]


def process_problems(instance: RunningInstance) -> list[str]:
    """Return the problems of an instance or a worker, except those of its polls."""
    if instance.state is None:
        return [f"no instance runs with {instance.folder}; the log says why, if a start was refused"]
    if instance.standing == DIED:
        return ["the process died; start it again, no recording is lost"]
    state, problems = instance.state, []
    if instance.standing == HANGS:
        silent = time.time() - state["at"]
        problems.append(f"process {state['pid']} has not responded for {silent:.0f} s; read its log and restart it")
    for name, outage in state["out"].items():
        never = "" if outage.get("reached", True) else f"; {UNREACHED_TEXT}"
        problems.append(f"{name} is unavailable: {outage['reason']}{never}")
    if not state["disk_has_room"]:
        problems.append(f"the disk of temp_dir is nearly full: no new recording is started; {_room_text(instance.folder)}")
    return problems


def _room_text(folder: Path) -> str:
    """Return how much space is free, and what to do."""
    advice = "make room there; the muxer continues by itself ([processing] min_free_megabytes)"
    with suppress(OSError):
        return f"{format_megabytes(shutil.disk_usage(folder).free)} are free in {folder}: {advice}"
    return advice


def _poll_problems(state: dict[str, Any], config: Config, is_fleet: bool) -> list[str]:
    """Return whether the last poll failed or is too old. A poll that waits for workers leaves a queue, except in a fleet."""
    if config.advanced.call_recording_query_string:  # A migration has no polls.
        return []
    polls, interval = state["polls"], config.processing.min_poll_interval * 60
    last = state["started"] if polls["last_success"] is None else polls["last_success"]
    is_busy = state["queued"] > 0 and not is_fleet
    took = expected_seconds(polls["seconds"], polls["whole_seconds"], polls.get("progress", 0.0))
    late = overdue_seconds(last, took, time.time(), interval, is_busy=is_busy)
    error = f": {polls['error']}" if polls["error"] else ""
    if late is not None:
        return [f"no poll has succeeded for {late:.0f} s{error}"]
    # The reason of a service that is unavailable is shown already, perhaps with the text of another request.
    is_shown = any(_is_cause(polls["error"], name, outage["reason"]) for name, outage in state["out"].items())
    return [f"the last poll failed{error}"] if polls["failed"] and error and not is_shown else []


def _correction_problems(instance: RunningInstance, config: Config) -> list[str]:
    """Return whether nothing is muxed until a person corrects something. A migration has no journal."""
    failures = read_failures_since_muxed(instance.journal_path)
    if failures is None or config.advanced.call_recording_query_string:
        return []
    need = find_correction_need(failures, time.time())
    return [need.text] if need else []


def _is_cause(error: str, service: str, reason: str) -> bool:
    """Whether the error of a poll is that of a service that is unavailable for a `reason`."""
    kind = reason.partition(":")[0]
    return error == reason or (service in error and error.partition(":")[0] == kind)


def _is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a folder. A lock that cannot be read counts as held."""
    try:
        return lock_holder(folder / LOCK_FILE) is not None
    except OSError:
        return True
