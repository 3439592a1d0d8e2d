"""What stands in the tables of the status page: one plain row for each service, job, failure and recording. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muxer import progress
from muxer.activity import Running
from muxer.monitoring import agents, drawing, timelines
from muxer.monitoring.history import Row
from muxer.monitoring.view import Service
from muxer.monitoring.words import careful, exact, plain, span
from muxer.remedies import remedy

_TAG = re.compile(r"_([0-9a-f]{8})[0-9a-f]{12}_muxed\.mp4")


@dataclass(frozen=True)
class Whose:
    """Which muxed file a row is about: its recording, a label of its agent, and a part of its name that the log has too."""

    recording: str
    agent: str
    tag: str


@dataclass(frozen=True)
class Health:
    """A service: whether it is up, since when it is out and why, when it last did what was asked."""

    name: str
    up: bool
    since: float | None
    reason: str
    last_success: float | None


@dataclass(frozen=True)
class Work:
    """A running job: its step, how far that is (0 to 100, None where nobody knows), in words, since when it runs, and the
    worker of the fleet that does it (empty: this process)."""

    whose: Whose
    step: str
    percent: int | None
    words: str
    begun: float
    worker: str


@dataclass(frozen=True)
class Failure:
    """A target that failed: why, how often, what to do, and when it is tried again; ``state`` is that of the journal."""

    whose: Whose
    code: str
    kind: str
    reason: str
    attempts: int
    retry_at: float | None
    state: str
    advice: str
    at: float


@dataclass(frozen=True)
class Finished:
    """A target that is done. Texts are empty where it was only brought up to date, without a new file; `missing` is
    what its sources lacked. ``strip`` is a small picture of the muxed file, ``name`` that of its page, both empty where the
    journal has no timeline of it."""

    whose: Whose
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


def whose(recording: str, agent: str, name: str) -> Whose:
    """Given a target's recording, agent and file name, return what the page tells of them."""
    found = _TAG.search(name)
    return Whose(plain(recording), agents.label(agent), found[1] if found else "")


def health(service: Service) -> Health:
    """Given a service, return its row."""
    return Health(plain(service.name), service.up, service.since, careful(service.reason), service.last_success)


def work(running: Running, now: float, worker: str = "") -> Work:
    """Given a running job, the time and the worker that does it, return its row."""
    told, made = whose(running.recording, running.agent, running.file), _progress(running, now)
    percent = None if made.percent is None else int(made.percent)
    words = progress.shown(made, running.step) or f"for {span(now - running.step_begun)}"
    return Work(told, plain(running.step), percent, words, running.begun, plain(worker))


def _progress(running: Running, now: float) -> progress.Progress:
    return progress.progress(running.done, running.total, running.step_begun, now)


def failure(row: Row) -> Failure:
    """Given a target that failed, as the journal has it, return its row."""
    told, reason = whose(row.recording, row.agent, row.name), careful(row.reason, row.agent)
    code, kind, what = plain(row.code), plain(row.error), remedy(row.code).replace("`", "")
    return Failure(told, code, kind, reason, row.attempts, row.retry_at, row.state, what, row.updated)


def finished(row: Row) -> Finished:
    """Given a target that is done, as the journal has it, return its row."""
    facts, timeline = row.facts, timelines.read(row.facts.get("timeline"))
    method = str(facts.get("method", ""))
    return Finished(
        whose(row.recording, row.agent, row.name),
        row.updated,
        length=_seconds(facts, "length"),
        padding=_seconds(facts, "padding"),
        method=method if method in ("", "copy") else "re-encoded",
        why="" if method == "copy" else careful(method, row.agent),
        seconds=_seconds(facts, "seconds"),
        encrypted=bool(facts.get("encrypted")),
        missing=careful(str(facts.get("missing", "")), row.agent),
        strip=drawing.strip(timeline) if timeline else "",
        name=row.name if timeline else "",
    )


def _seconds(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name)
    return exact(value) if isinstance(value, int | float) else ""
