"""The running instance that a command is about, looked at from outside: its folder, its state file, its journal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muxer import state
from muxer.config.schema import Config
from muxer.journal import JOURNAL
from muxer.lock import holder
from muxer.monitoring.lateness import lateness
from muxer.workspace import LOCK, folder_of

# The state file is written every two seconds; a busy machine may be late.
FRESH_SECONDS = 30.0
NO_JOURNAL = "there is no journal at {}: has this instance run, with this temp_dir?"
RUNS, HANGS, DIED, DOWN = "runs", "hangs", "died", "does not run"


@dataclass(frozen=True)
class Instance:
    """An instance by its configuration: whether it :attr:`runs <standing>`, and what it says of itself (None = nothing)."""

    folder: Path
    standing: str
    state: dict[str, Any] | None

    @property
    def journal(self) -> Path:
        """Where its journal lies."""
        return self.folder / JOURNAL


def look(config: Config) -> Instance:
    """Given a configuration, look at the instance that runs with it."""
    folder = folder_of(config.processing.temp_dir, config.instance)
    found = state.read(folder)
    if found is None:
        return Instance(folder, DOWN, None)
    if time.time() - found["at"] <= FRESH_SECONDS:
        return Instance(folder, RUNS, found)
    return Instance(folder, HANGS if _is_held(folder) else DIED, found)


def trouble(instance: Instance, config: Config) -> list[str]:
    """Given an instance, return what is wrong with it, most important first; nothing when it is at its work."""
    if instance.state is None:
        return [f"no instance runs with {instance.folder}"]
    if instance.standing == DIED:
        return ["the process has died without a stop; start it again, nothing is lost"]
    found, now = instance.state, time.time()
    reasons = []
    if instance.standing == HANGS:
        reasons.append(f"process {found['pid']} has said nothing for {now - found['at']:.0f} s; see its log, and restart it")
    reasons += [f"{name} is out: {one['reason']}" for name, one in found["out"].items()]
    if not found["disk_has_room"]:
        reasons.append("the disk of temp_dir is nearly full: no new recording is begun")
    if config.advanced.call_recording_query_string:  # a migration has no polls
        return reasons
    polls, interval = found["polls"], config.processing.min_poll_interval * 60
    last = found["started"] if polls["last_success"] is None else polls["last_success"]
    late = lateness(last, polls["seconds"], now, interval, is_busy=found["queued"] > 0)
    if late is not None:
        reasons.append(f"no poll has succeeded for {late:.0f} s{': ' + polls['error'] if polls['error'] else ''}")
    return reasons


def _is_held(folder: Path) -> bool:
    """Whether a process holds a folder: its lock ends with it. One that cannot be looked at counts as held."""
    try:
        return holder(folder / LOCK) is not None
    except OSError:
        return True
