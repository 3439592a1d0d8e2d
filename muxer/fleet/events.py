"""The events of workers and pollers: JSON in an exchange to which every poller subscribes. Pure.

``worker`` and ``poller`` are heartbeats, ``gone`` is the regular end of a worker; other kinds are about a target. Receivers
ignore unknown kinds.
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
# Limits of an event and of the texts in it, which go into the journal and the log.
MAX_EVENT_BYTES, MAX_NAME_LENGTH = 256 * 1024, 1000
# Heartbeats are repeated soon: they need not be stored.
TRANSIENT_EVENTS = (WORKER, GONE, POLLER)


@dataclass(frozen=True)
class Event:
    """An event. `sender` is the name of a worker or a poller; `recording` and `file` are those of a target, if any."""

    what: str
    sender: str
    recording: str = ""
    file: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def encode_event(event: Event) -> bytes:
    """Return the message of an event."""
    return json.dumps({"version": EVENT_VERSION, **asdict(event)}, default=str).encode()


def decode_event(body: bytes) -> Event | None:
    """Return the event of a message; None when it is malformed. Unknown fields are ignored, for upgrades."""
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
    is_valid = all(text == to_storable_text(text) and len(text) <= MAX_NAME_LENGTH for text in texts)
    return event if is_valid else None


def to_storable_text(value: object) -> str:
    """Return a received value as text that can be stored: JSON may contain lone surrogates."""
    return str(value).encode(errors="backslashreplace").decode()


def event_key(event: Event) -> TargetKey:
    """Return the target of an event."""
    facts = event.details.get("facts")
    agent = event.details.get("agent") or (facts.get("agent") if isinstance(facts, dict) else "")
    return TargetKey(event.file, event.recording, to_storable_text(agent or ""))


def parse_failure(details: dict[str, Any]) -> Failure:
    """Return the failure in the details of a ``failed`` event. Raises ValueError, TypeError or KeyError when malformed."""
    plain = dict(details["failure"])
    texts = {name: to_storable_text(plain[name])[:MAX_REASON_LENGTH] for name in ("code", "error", "reason", "service")}
    retry_after = plain["retry_after"]
    if retry_after is not None and not math.isfinite(retry_after):
        raise ValueError(f"retry after {retry_after}")
    return Failure(RetryPolicy(plain["when"]), retry_after, **texts)
