"""Reports the outcomes of a worker to the pollers, which record them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from muxer.fleet import events
from muxer.fleet.events import Event
from muxer.journal.journal import MAX_REASON_LENGTH, Journal, TargetKey, epoch_now
from muxer.journal.retry_policy import Failure
from muxer.log.setup import recording_context
from muxer.system.masking import Mask

log = logging.getLogger(__name__)

# What an outcome states besides these is short.
MAX_FACTS_BYTES = events.MAX_EVENT_BYTES // 2


class EventReporter:
    """Sends an event for each outcome. Safe to use from any thread."""

    def __init__(
        self, send: Callable[[Event], None], name: str, mask: Mask, message_id: Callable[[], str] = lambda: ""
    ) -> None:
        """Create it. `name` is that of the worker; `message_id` returns the id of the message of this thread's task."""
        self._send, self._name, self._mask, self._message_id = send, name, mask, message_id
        # Decides whether a failed target may be retried at once, by the rules of the pollers' journals.
        self._rules = Journal(None)

    def record_start(self, key: TargetKey) -> None:
        """Report that a target is started. Its earlier failures do not count: each task has attempts of its own."""
        self._rules.record_done(key, epoch_now(), {})
        self._send_event(events.BEGUN, key)

    def record_postponed(self, key: TargetKey) -> None:
        """Report that a target waits for a service: the next poll submits it again."""
        with recording_context(key.recording):
            # At level debug: during an outage, each poll submits thousands of them.
            log.debug("not started, a service that it needs is unavailable; the next poll submits it again")
        self._send_event(events.POSTPONED, key)

    def dropped(self, key: TargetKey) -> None:
        """Report that a task is dropped, because another worker is processing the same target."""
        with recording_context(key.recording):
            log.info("another worker is processing the same file; this task is dropped")
        self._send_event(events.DROPPED, key)

    def record_done(self, key: TargetKey, outcome: str, facts: Mapping[str, Any]) -> None:
        """Report that a target is finished."""
        self._rules.record_done(key, epoch_now(), {})
        kept = dict(facts)
        if len(json.dumps(kept, default=str)) > MAX_FACTS_BYTES:
            # The timeline of a call with hundreds of screen files: pollers refuse longer events.
            kept.pop("timeline", None)
        self._send_event(events.DONE, key, outcome=outcome, facts=kept)

    def record_failure(self, key: TargetKey, failure: Failure, level: int, error: Exception | None, last: bool) -> bool:
        """Log and report a failed attempt; return whether this worker may retry it at once. The pollers decide the rest."""
        retry = self._rules.record_failure(key, failure, epoch_now()).retry_at is not None
        with recording_context(key.recording):
            fields = {"code": failure.code, "file": key.name}
            log.log(level, "attempt failed: %s", failure.text, extra={"fields": fields}, exc_info=error)
        reported = {**vars(failure), "reason": self._mask(failure.reason)[:MAX_REASON_LENGTH]}
        self._send_event(events.FAILED, key, failure=reported, level=level, more=retry and not last)
        return retry

    def refused(self, key: TargetKey, reason: str) -> None:
        """Report that this worker cannot read a task."""
        self._send_event(events.REFUSED, key, reason=reason)

    def _send_event(self, what: str, key: TargetKey, **details: Any) -> None:
        known = {"agent": key.agent, "message": self._message_id()}
        details |= {name: value for name, value in known.items() if value}
        self._send(Event(what, self._name, key.recording, key.name, details))
