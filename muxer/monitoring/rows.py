"""The rows of the tables on the status page, for services, jobs, failures and recordings. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muxer.journal.history import TargetRecord
from muxer.monitoring import pseudonyms, timeline_svg
from muxer.monitoring.view import ServiceStatus
from muxer.status import progress
from muxer.status.activity import RunningTarget
from muxer.status.error_help import help_for
from muxer.status.formatting import format_exact, format_span, redact, single_line
from muxer.status.timeline_view import read_timeline

# Longer than the reason of a recording: it ends with what to do.
MAX_SERVICE_REASON_LENGTH = 600
_TAG = re.compile(r"_([0-9a-f]{8})[0-9a-f]{12}_muxed\.mp4")


@dataclass(frozen=True)
class FileRef:
    """The muxed file of a row: its recording, a pseudonym of its agent, and a part of its name to search the log for."""

    recording: str
    agent: str
    tag: str


@dataclass(frozen=True)
class ServiceRow:
    """A service. `since` and `reason` are for one that is unavailable."""

    name: str
    up: bool
    since: float | None
    reason: str
    last_success: float | None


@dataclass(frozen=True)
class JobRow:
    """A running job: its step, the step's progress (None: unknown), and the worker (empty: this process)."""

    file: FileRef
    step: str
    percent: int | None
    text: str
    begun: float
    worker: str


@dataclass(frozen=True)
class FailureRow:
    """A failed target. `retry_at` is None when it is set aside; `state` is that of the journal."""

    file: FileRef
    code: str
    kind: str
    reason: str
    attempts: int
    retry_at: float | None
    state: str
    advice: str
    at: float


@dataclass(frozen=True)
class FinishedRow:
    """A finished target, with empty texts when it was only updated. `strip` is a small drawing, `name` its page."""

    file: FileRef
    at: float
    length: str
    padding: str
    method: str
    why: str
    seconds: str
    encrypted: bool
    missing: str
    strip: str
    name: str


def file_ref(recording: str, agent: str, name: str) -> FileRef:
    """Return what the page shows of a target with the file name `name`."""
    tag = _TAG.search(name)
    return FileRef(single_line(recording), pseudonyms.agent_pseudonym(agent), tag[1] if tag else "")


def service_row(service: ServiceStatus, known_names: Sequence[str] = ()) -> ServiceRow:
    """Return the row of a service. `known_names` are shown in its reason."""
    reason = redact(service.reason, known=known_names, longest=MAX_SERVICE_REASON_LENGTH)
    return ServiceRow(single_line(service.name), service.up, service.since, reason, service.last_success)


def job_row(running: RunningTarget, now: float, worker: str = "") -> JobRow:
    """Return the row of a job that `worker` runs (empty: this process)."""
    file = file_ref(running.recording, running.agent, running.file)
    measured = progress.measure_progress(running.done, running.total, running.step_begun, now)
    percent = None if measured.percent is None else int(measured.percent)
    text = progress.format_progress(measured, running.step) or f"for {format_span(now - running.step_begun)}"
    return JobRow(file, single_line(running.step), percent, text, running.begun, single_line(worker))


def failure_row(row: TargetRecord) -> FailureRow:
    """Return the row of a failed target."""
    file, reason = file_ref(row.recording, row.agent, row.name), redact(row.reason, row.agent)
    code, kind, remedy = single_line(row.code), single_line(row.error), help_for(row.code).replace("`", "")
    return FailureRow(file, code, kind, reason, row.attempts, row.retry_at, row.state, remedy, row.updated)


def finished_row(row: TargetRecord) -> FinishedRow:
    """Return the row of a finished target."""
    facts, timeline = row.facts, read_timeline(row.facts.get("timeline"))
    method = str(facts.get("method", ""))
    return FinishedRow(
        file_ref(row.recording, row.agent, row.name),
        row.updated,
        length=_format_seconds(facts, "length"),
        padding=_format_seconds(facts, "padding"),
        method=method if method in ("", "copy") else "re-encoded",
        why="" if method == "copy" else redact(method, row.agent),
        seconds=_format_seconds(facts, "seconds"),
        encrypted=bool(facts.get("encrypted")),
        missing=redact(str(facts.get("missing", "")), row.agent),
        strip=timeline_svg.render_strip(timeline) if timeline else "",
        name=row.name if timeline else "",
    )


def _format_seconds(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name)
    return format_exact(value) if isinstance(value, int | float) else ""
