"""What workers tell the pollers, and pollers each other: JSON in an exchange that every poller listens to. Pure.

An event tells what became of a target (``queued``, ``begun``, ``postponed``, ``done``, ``failed``, ``refused``) or how a
worker stands (``worker``, every few seconds; ``gone`` at its regular end). Whoever does not know a kind passes over it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from muxer.failures import Failure, When

VERSION = 1
QUEUED, BEGUN, POSTPONED, DONE, FAILED, REFUSED = "queued", "begun", "postponed", "done", "failed", "refused"
WORKER, GONE = "worker", "gone"
# How a worker stands is told again soon: nothing is lost with it.
PASSING = (WORKER, GONE)


@dataclass(frozen=True)
class Event:
    """What happened, who tells it (a name of a worker or a poller), of which target if of one, and more by its kind."""

    what: str
    sender: str
    recording: str = ""
    file: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def encode(event: Event) -> bytes:
    """Given an event, return its message."""
    return json.dumps({"version": VERSION, **asdict(event)}, default=str).encode()


def decode(body: bytes) -> Event | None:
    """Given a message, return its event; None when it is none of this version."""
    try:
        plain = json.loads(body)
        if plain.pop("version") != VERSION:
            return None
        event = Event(**plain)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = (event.what, event.sender, event.recording, event.file)
    return event if all(isinstance(one, str) for one in texts) and isinstance(event.details, dict) else None


def failure_of(details: dict[str, Any]) -> Failure:
    """Given the details of a ``failed`` event, return the failure. Raise ``ValueError``, ``TypeError`` or ``KeyError`` when
    they hold none."""
    plain = dict(details["failure"])
    return Failure(**{**plain, "when": When(plain["when"])})
