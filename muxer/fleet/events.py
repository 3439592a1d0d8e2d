"""What workers tell the pollers, and pollers each other: JSON in an exchange that every poller listens to. Pure.

An event tells what became of a target (``queued``, ``begun``, ``postponed``, ``dropped``, ``done``, ``failed``,
``refused``), with the id of the ``message`` that ordered it, or how a worker stands (``worker``, every few seconds; ``gone``
at its regular end), or that a ``poller`` is there. Whoever does not know a kind passes over it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from muxer.journal.journal import MAX_REASON_LENGTH, TargetKey
from muxer.journal.retry_policy import Failure, RetryPolicy
from muxer.system.json_codec import MALFORMED_ERRORS, from_json

EVENT_VERSION = 1
QUEUED, BEGUN, POSTPONED, DROPPED = "queued", "begun", "postponed", "dropped"
DONE, FAILED, REFUSED = "done", "failed", "refused"
WORKER, GONE, POLLER = "worker", "gone", "poller"
# No event is longer, and no name or text in it: what is told goes into the journal and the log.
MAX_EVENT_BYTES, MAX_NAME_LENGTH = 256 * 1024, 1000
# How a worker stands is told again soon: nothing is lost with it, and nobody who is not there is told later.
TRANSIENT_EVENTS = (WORKER, GONE, POLLER)


@dataclass(frozen=True)
class Event:
    """What happened, who tells it (a name of a worker or a poller), of which target if of one, and more by its kind."""

    what: str
    sender: str
    recording: str = ""
    file: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def encode_event(event: Event) -> bytes:
    """Given an event, return its message."""
    return json.dumps({"version": EVENT_VERSION, **asdict(event)}, default=str).encode()


def decode_event(body: bytes) -> Event | None:
    """Given a message, return its event, without fields that are not known here: workers are upgraded before their poller.
    None when it is none of this version, or too long."""
    if len(body) > MAX_EVENT_BYTES:
        return None
    try:
        plain = json.loads(body)
        if plain.pop("version") != EVENT_VERSION:
            return None
        event = from_json(Event, plain)
    except MALFORMED_ERRORS:
        return None
    texts = (event.what, event.sender, event.recording, event.file)
    is_fit = all(one == to_storable_text(one) and len(one) <= MAX_NAME_LENGTH for one in texts)
    return event if is_fit else None


def to_storable_text(value: object) -> str:
    """Given anything that was told, return it as a text that can be kept anywhere: JSON may hold half characters."""
    return str(value).encode(errors="backslashreplace").decode()


def event_key(event: Event) -> TargetKey:
    """Given an event, return the target that it is about."""
    facts = event.details.get("facts")
    agent = event.details.get("agent") or (facts.get("agent") if isinstance(facts, dict) else "")
    return TargetKey(event.file, event.recording, to_storable_text(agent or ""))


def parse_failure(details: dict[str, Any]) -> Failure:
    """Given the details of a ``failed`` event, return the failure. Raise ``ValueError``, ``TypeError`` or ``KeyError`` when
    they hold none."""
    plain = dict(details["failure"])
    texts = {name: to_storable_text(plain[name])[:MAX_REASON_LENGTH] for name in ("code", "error", "reason", "service")}
    retry_after = plain["retry_after"]
    if retry_after is not None and not math.isfinite(retry_after):
        raise ValueError(f"retry after {retry_after}")
    return Failure(RetryPolicy(plain["when"]), retry_after, **texts)
