"""A worker's ledger: what becomes of its targets is told to the pollers, who keep the books."""

from __future__ import annotations

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


class EventReporter:
    """A ledger (:class:`muxer.scheduling.attempts.Ledger`) that sends events. Safe to use from any thread."""

    def __init__(
        self, tell: Callable[[Event], None], name: str, mask: Mask, message: Callable[[], str] = lambda: ""
    ) -> None:
        """Given what sends an event, the name of this worker, what removes secrets, and what returns the id of the message
        whose order this thread works on."""
        self._tell, self._name, self._mask, self._message = tell, name, mask, message
        # Says how often a failed target may be tried at once, by the rules of the pollers' journals.
        self._rules = Journal(None)

    def record_start(self, key: TargetKey) -> None:
        """Tell that a target is begun."""
        self._send_event(events.BEGUN, key)

    def record_postponed(self, key: TargetKey) -> None:
        """Tell that a target waits for a service: the next poll brings it again."""
        with recording_context(key.recording):
            # Each poll brings each of them again: an outage has thousands.
            log.debug("not begun, a service that it needs is out; the next poll brings it again")
        self._send_event(events.POSTPONED, key)

    def dropped(self, key: TargetKey) -> None:
        """Tell that an order is dropped, because another one for the same target is being worked on."""
        with recording_context(key.recording):
            log.info("another order for the same file is being worked on; this one is dropped")
        self._send_event(events.DROPPED, key)

    def record_done(self, key: TargetKey, outcome: str, facts: Mapping[str, Any]) -> None:
        """Tell that nothing is left to do for a target."""
        self._rules.record_done(key, epoch_now(), {})
        self._send_event(events.DONE, key, outcome=outcome, facts=dict(facts))

    def record_failure(self, key: TargetKey, failure: Failure, level: int, error: Exception | None, last: bool) -> bool:
        """Log and tell that an attempt has failed. What follows from it is the pollers' to say; here is only decided whether
        this worker may try it again at once."""
        again = self._rules.record_failure(key, failure, epoch_now()).retry_at is not None
        with recording_context(key.recording):
            fields = {"code": failure.code, "file": key.name}
            log.log(level, "attempt failed: %s", failure.text, extra={"fields": fields}, exc_info=error)
        told = {**vars(failure), "reason": self._mask(failure.reason)[:MAX_REASON_LENGTH]}
        self._send_event(events.FAILED, key, failure=told, level=level, more=again and not last)
        return again

    def refused(self, key: TargetKey, reason: str) -> None:
        """Tell that an order is none that this worker can read."""
        self._send_event(events.REFUSED, key, reason=reason)

    def _send_event(self, what: str, key: TargetKey, **details: Any) -> None:
        known = {"agent": key.agent, "message": self._message()}
        details |= {name: value for name, value in known.items() if value}
        self._tell(Event(what, self._name, key.recording, key.name, details))
