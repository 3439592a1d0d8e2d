"""What stands in the tables of the status page: one plain row for each service, job, failure and recording. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muxer.activity import Running
from muxer.journal import ASIDE
from muxer.monitoring import agents, drawing, timelines
from muxer.monitoring.advice import advice
from muxer.monitoring.history import Row
from muxer.monitoring.view import Service
from muxer.monitoring.words import careful, megabytes, plain, position, span

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
    """A running job: its step, how far that is (0 to 100, None where nobody knows), in words, and since when it runs."""

    whose: Whose
    step: str
    percent: int | None
    words: str
    begun: float


@dataclass(frozen=True)
class Failure:
    """A target that failed: why, how often, when it is tried again (None = set aside), and what to do."""

    whose: Whose
    kind: str
    reason: str
    attempts: int
    retry_at: float | None
    aside: bool
    advice: str
    at: float


@dataclass(frozen=True)
class Finished:
    """A target that is done. Texts are empty where it was only brought up to date, without a new file; ``strip`` is a small
    picture of the muxed file, ``name`` that of its page, both empty where the journal has no timeline of it."""

    whose: Whose
    at: float
    length: str
    padding: str
    method: str
    why: str
    seconds: str
    encrypted: bool
    strip: str
    name: str


def whose(recording: str, agent: str, name: str) -> Whose:
    """Given a target's recording, agent and file name, return what the page tells of them."""
    found = _TAG.search(name)
    return Whose(plain(recording), agents.label(agent), found[1] if found else "")


def health(service: Service) -> Health:
    """Given a service, return its row."""
    return Health(plain(service.name), service.up, service.since, careful(service.reason), service.last_success)


def work(running: Running, now: float) -> Work:
    """Given a running job and the time, return its row."""
    told = whose(running.recording, running.agent, running.file)
    if not running.total:
        return Work(told, plain(running.step), None, f"for {span(now - running.step_begun)}", running.begun)
    share = min(running.done / running.total, 1.0)
    return Work(told, plain(running.step), int(100 * share), _progress(running, share, now), running.begun)


def failure(row: Row) -> Failure:
    """Given a target that failed, as the journal has it, return its row."""
    told, reason = whose(row.recording, row.agent, row.name), careful(row.reason, row.agent)
    aside = row.state == ASIDE
    return Failure(told, plain(row.error), reason, row.attempts, row.retry_at, aside, advice(row.error), row.updated)


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
        strip=drawing.strip(timeline) if timeline else "",
        name=row.name if timeline else "",
    )


def _seconds(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name)
    if not isinstance(value, int | float):
        return ""
    return f"{value:.1f} s" if value < 60 else span(value)


def _progress(running: Running, share: float, now: float) -> str:
    """Return how far a step is, how fast it goes and how long it may still take."""
    elapsed = now - running.step_begun
    media = running.step == "mux"
    done, total = (position(one / 1e6) if media else megabytes(one) for one in (running.done, running.total))
    words = f"{done} of {total}"
    if elapsed < 1 or not running.done:
        return words
    speed = running.done / elapsed
    rate = f"{speed / 1e6:.1f} times real time" if media else f"{megabytes(speed)}/s"
    left = f", {span((running.total - running.done) / speed)} left" if share < 1 else ""
    return f"{words}, {rate}{left}"
