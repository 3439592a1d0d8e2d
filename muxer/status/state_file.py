"""The state file of a running muxer, written every two seconds, for `status` and for external monitoring."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from muxer import __version__
from muxer.errors import LocalResourceError
from muxer.status.activity import ActivitySnapshot, PollStatistics, RunningTarget
from muxer.status.service_state import ServiceState
from muxer.system import files
from muxer.system.files import open_private
from muxer.system.json_codec import from_json
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
    """The state file of one instance, readable by this account only."""

    def __init__(self, path: Path, instance: str, mask: Mask, log_output: str = "", http_port: int = 0) -> None:
        """`log_output` says where the log is, `http_port` is the monitoring port, 0 without one."""
        self._path, self._mask = path, mask
        self._identity = {"version": __version__, "instance": instance, "pid": os.getpid()}
        self._identity |= {"log": log_output, "http_port": http_port}
        self._warned = False

    def write_state(
        self,
        snapshot: ActivitySnapshot,
        queued: int,
        services: Iterable[ServiceState],
        has_room: bool,
        *,
        progress: float = 0.0,
        fleet: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the file, with the unavailable ones of `services`; log a warning once when that fails.

        `progress`: for how many seconds the running poll has made progress.
        """
        out = {
            one.name: {"out_since": one.since, "reason": one.reason, "reached": one.is_reached}
            | {"remedy": one.remedy, "needs_correction": one.needs_correction}
            for one in services
            if one.since is not None
        }
        state = {**self._identity, **snapshot_json(snapshot), "queued": queued, "out": out, "disk_has_room": has_room}
        state["polls"]["progress"] = progress
        state["fleet"] = fleet
        new = self._path.with_suffix(".new")
        try:
            with open_private(new) as file:
                file.write(self._mask(json.dumps(state)).encode(errors="backslashreplace"))
            files.replace_file(new, self._path)
            self._warned = False
        except (OSError, LocalResourceError) as error:
            if not self._warned:
                log.warning("cannot write the state file %s: %s", self._path, error)
            self._warned = True

    def remove_file(self) -> None:
        """Remove the file."""
        for path in (self._path, self._path.with_suffix(".new")):
            with contextlib.suppress(OSError):
                files.remove_file(path)


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the contents of the state file in the temporary folder of an instance; None when there is no complete one."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if _is_complete(state) else None


def running_jobs(state: Mapping[str, Any]) -> tuple[RunningTarget, ...]:
    """Return the running jobs in the result of :func:`read_state`."""
    return tuple(from_json(RunningTarget, job) for job in state["running"])


def _is_complete(state: object) -> bool:
    if not _has_fields(state, _REQUIRED_FIELDS):
        return False
    assert isinstance(state, dict)
    return (
        _has_fields(state["polls"], {"result": dict, "seconds": _NUMBER, "whole_seconds": _NUMBER, "error": str})
        and state["polls"].keys() >= vars(PollStatistics()).keys()
        and _has_fields(state["totals"], {"outcomes": dict})
        and all(_has_fields(job, _RUNNING_FIELDS) for job in state["running"])
        and all(_has_fields(outage, {"reason": str}) for outage in state["out"].values())
    )


def _has_fields(value: object, fields: Mapping[str, Any]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in fields.items())


def snapshot_json(snapshot: ActivitySnapshot) -> dict[str, Any]:
    """Return a snapshot in its JSON form: counters of pairs become lists of [name, name, count]."""
    totals = snapshot.totals
    pairs = {"moved": totals.moved, "errors": totals.errors}
    return {
        "at": snapshot.at,
        "started": snapshot.started,
        "running": [asdict(job) for job in snapshot.running],
        "polls": asdict(snapshot.polls),
        "totals": {
            "outcomes": dict(totals.outcomes),
            "methods": dict(totals.methods),
            "muxed_seconds": totals.muxed_seconds,
            "padding_seconds": totals.padding_seconds,
            **{name: [[*key, count] for key, count in counter.items()] for name, counter in pairs.items()},
            "steps": {name: asdict(histogram) for name, histogram in totals.steps.items()},
            "repeats": dict(totals.repeats),
        },
    }
