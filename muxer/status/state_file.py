"""The state file: how a running muxer stands, for the command ``status`` and for whoever watches it from outside.

It is written every two seconds and removed at a regular end; a process that was killed leaves it behind, with a time that
grows old.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from muxer import __version__
from muxer.errors import LocalResourceError
from muxer.status.activity import ActivitySnapshot, PollStatistics, RunningTarget
from muxer.system import files
from muxer.system.files import open_private
from muxer.system.masking import Mask

log = logging.getLogger(__name__)

STATE_FILE = "state.json"

_NUMBER = int | float
_REQUIRED_FIELDS = {"version": str, "instance": str, "pid": int, "at": _NUMBER, "started": _NUMBER, "queued": int} | {
    "running": list,
    "polls": dict,
    "totals": dict,
    "out": dict,
    "disk_has_room": bool,
}
_RUNNING_FIELDS = {"recording": str, "agent": str, "file": str, "begun": _NUMBER, "step": str} | {
    "step_begun": _NUMBER,
    "done": _NUMBER,
    "total": _NUMBER,
}


class StateFile:
    """The state file of one instance, which only this account can read."""

    def __init__(self, path: Path, instance: str, mask: Mask) -> None:
        """Given its path, the instance's name and what removes secrets, remember them. Nothing is written yet."""
        self._path, self._mask = path, mask
        self._whose = {"version": __version__, "instance": instance, "pid": os.getpid()}
        self._told = False

    def write_state(
        self,
        snapshot: ActivitySnapshot,
        queued: int,
        out: Mapping[str, tuple[float, str]],
        has_room: bool,
        fleet: Mapping[str, Any] | None = None,
    ) -> None:
        """Given what happens now, the number of targets in the queue, the services that are out (since when, in seconds of
        ``time.monotonic``, and why), whether the disk has room and how the fleet stands (None without one), write the file;
        say once when that is not possible."""
        elapsed = time.time() - time.monotonic()
        services = {name: {"out_since": since + elapsed, "reason": reason} for name, (since, reason) in out.items()}
        state = {**self._whose, **snapshot_json(snapshot), "queued": queued, "out": services, "disk_has_room": has_room}
        state["fleet"] = fleet
        new = self._path.with_suffix(".new")
        try:
            with open_private(new) as file:
                file.write(self._mask(json.dumps(state)).encode(errors="backslashreplace"))
            files.replace_file(new, self._path)
            self._told = False
        except (OSError, LocalResourceError) as error:
            if not self._told:
                log.warning("%s cannot be written: %s", self._path, error)
            self._told = True

    def remove_file(self) -> None:
        """Remove the file: this process ends."""
        for path in (self._path, self._path.with_suffix(".new")):
            with contextlib.suppress(OSError):
                files.remove_file(path)


def read_state(folder: Path) -> dict[str, Any] | None:
    """Given the temporary folder of an instance, return what its state file says; None when none can be read, or it lacks
    something."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if _is_complete(state) else None


def running_jobs(state: Mapping[str, Any]) -> tuple[RunningTarget, ...]:
    """Given what :func:`read` has returned, return the jobs that run."""
    return tuple(RunningTarget(**{name: one[name] for name in _RUNNING_FIELDS}) for one in state["running"])


def _is_complete(state: object) -> bool:
    """Whether everything is there that :meth:`StateFile.write` writes, as far as a reader needs it."""
    if not _has_fields(state, _REQUIRED_FIELDS):
        return False
    assert isinstance(state, dict)
    return (
        _has_fields(state["polls"], {"result": dict, "seconds": _NUMBER, "error": str})
        and state["polls"].keys() >= vars(PollStatistics()).keys()
        and _has_fields(state["totals"], {"outcomes": dict})
        and all(_has_fields(one, _RUNNING_FIELDS) for one in state["running"])
        and all(_has_fields(one, {"reason": str}) for one in state["out"].values())
    )


def _has_fields(found: object, form: Mapping[str, Any]) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in form.items())


def snapshot_json(snapshot: ActivitySnapshot) -> dict[str, Any]:
    """Given a snapshot, return it as JSON holds it: counters of pairs become lists of [word, word, count]."""
    totals = snapshot.totals
    pairs = {"moved": totals.moved, "errors": totals.errors}
    return {
        "at": snapshot.at,
        "started": snapshot.started,
        "running": [asdict(one) for one in snapshot.running],
        "polls": asdict(snapshot.polls),
        "totals": {
            "outcomes": dict(totals.outcomes),
            "methods": dict(totals.methods),
            "muxed_seconds": totals.muxed_seconds,
            "padding_seconds": totals.padding_seconds,
            **{name: [[*key, count] for key, count in counter.items()] for name, counter in pairs.items()},
            "steps": {name: asdict(one) for name, one in totals.steps.items()},
            "repeats": dict(totals.repeats),
        },
    }
