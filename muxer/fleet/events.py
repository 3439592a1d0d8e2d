"""What workers tell the pollers, and pollers each other: JSON in an exchange that every poller listens to. Pure.

An event tells what became of a target (``queued``, ``begun``, ``postponed``, ``dropped``, ``done``, ``failed``,
``refused``), with the id of the ``message`` that ordered it, or how a worker stands (``worker``, every few seconds; ``gone``
at its regular end), or that a ``poller`` is there. Whoever does not know a kind passes over it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from muxer.failures import Failure, When
from muxer.journal import LONGEST_REASON, Key

VERSION = 1
QUEUED, BEGUN, POSTPONED, DROPPED = "queued", "begun", "postponed", "dropped"
DONE, FAILED, REFUSED = "done", "failed", "refused"
WORKER, GONE, POLLER = "worker", "gone", "poller"
# No event is longer, and no name or text in it: what is told goes into the journal and the log.
MOST_BYTES, LONGEST_NAME = 256 * 1024, 1000
# What comes of reading a message that is no message.
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
# How a worker stands is told again soon: nothing is lost with it, and nobody who is not there is told later.
PASSING = (WORKER, GONE, POLLER)


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
    """Given a message, return its event, without fields that are not known here: workers are upgraded before their poller.
    None when it is none of this version, or too long."""
    if len(body) > MOST_BYTES:
        return None
    try:
        plain = json.loads(body)
        if plain.pop("version") != VERSION:
            return None
        event = Event(**{one.name: plain[one.name] for one in fields(Event) if one.name in plain})
    except MALFORMED:
        return None
    texts = (event.what, event.sender, event.recording, event.file)
    is_fit = all(one == text(one) and len(one) <= LONGEST_NAME for one in texts) and isinstance(event.details, dict)
    return event if is_fit else None


def text(value: object) -> str:
    """Given anything that was told, return it as a text that can be kept anywhere: JSON may hold half characters."""
    return str(value).encode(errors="backslashreplace").decode()


def key_of(event: Event) -> Key:
    """Given an event, return the target that it is about."""
    facts = event.details.get("facts")
    agent = event.details.get("agent") or (facts.get("agent") if isinstance(facts, dict) else "")
    return Key(event.file, event.recording, text(agent or ""))


def failure_of(details: dict[str, Any]) -> Failure:
    """Given the details of a ``failed`` event, return the failure. Raise ``ValueError``, ``TypeError`` or ``KeyError`` when
    they hold none."""
    plain = dict(details["failure"])
    texts = {name: text(plain[name])[:LONGEST_REASON] for name in ("code", "error", "reason", "service")}
    retry_after = plain["retry_after"]
    if retry_after is not None and not math.isfinite(retry_after):
        raise ValueError(f"retry after {retry_after}")
    return Failure(When(plain["when"]), retry_after, **texts)
