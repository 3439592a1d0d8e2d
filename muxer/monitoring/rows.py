"""What stands in the tables of the status page: one plain row for each service, job, failure and recording. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
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

_TAG = re.compile(r"_([0-9a-f]{8})[0-9a-f]{12}_muxed\.mp4")


@dataclass(frozen=True)
class FileRef:
    """Which muxed file a row is about: its recording, a label of its agent, and a part of its name that the log has too."""

    recording: str
    agent: str
    tag: str


@dataclass(frozen=True)
class ServiceRow:
    """A service: whether it is up, since when it is out and why, when it last did what was asked."""

    name: str
    up: bool
    since: float | None
    reason: str
    last_success: float | None


@dataclass(frozen=True)
class JobRow:
    """A running job: its step, how far that is (0 to 100, None where nobody knows), in words, since when it runs, and the
    worker of the fleet that does it (empty: this process)."""

    whose: FileRef
    step: str
    percent: int | None
    words: str
    begun: float
    worker: str


@dataclass(frozen=True)
class FailureRow:
    """A target that failed: why, how often, what to do, and when it is tried again; ``state`` is that of the journal."""

    whose: FileRef
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
    """A target that is done. Texts are empty where it was only brought up to date, without a new file; `missing` is
    what its sources lacked. ``strip`` is a small picture of the muxed file, ``name`` that of its page, both empty where the
    journal has no timeline of it."""

    whose: FileRef
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
    """Given a target's recording, agent and file name, return what the page tells of them."""
    found = _TAG.search(name)
    return FileRef(single_line(recording), pseudonyms.agent_pseudonym(agent), found[1] if found else "")


def service_row(service: ServiceStatus) -> ServiceRow:
    """Given a service, return its row."""
    return ServiceRow(single_line(service.name), service.up, service.since, redact(service.reason), service.last_success)


def job_row(running: RunningTarget, now: float, worker: str = "") -> JobRow:
    """Given a running job, the time and the worker that does it, return its row."""
    told, made = file_ref(running.recording, running.agent, running.file), _job_progress(running, now)
    percent = None if made.percent is None else int(made.percent)
    words = progress.format_progress(made, running.step) or f"for {format_span(now - running.step_begun)}"
    return JobRow(told, single_line(running.step), percent, words, running.begun, single_line(worker))


def _job_progress(running: RunningTarget, now: float) -> progress.Progress:
    return progress.measure_progress(running.done, running.total, running.step_begun, now)


def failure_row(row: TargetRecord) -> FailureRow:
    """Given a target that failed, as the journal has it, return its row."""
    told, reason = file_ref(row.recording, row.agent, row.name), redact(row.reason, row.agent)
    code, kind, what = single_line(row.code), single_line(row.error), help_for(row.code).replace("`", "")
    return FailureRow(told, code, kind, reason, row.attempts, row.retry_at, row.state, what, row.updated)


def finished_row(row: TargetRecord) -> FinishedRow:
    """Given a target that is done, as the journal has it, return its row."""
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
