"""A worker's ledger: what becomes of its targets is told to the pollers, who keep the books."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from muxer.failures import Failure
from muxer.fleet import events
from muxer.fleet.events import Event
from muxer.journal import LONGEST_REASON, Journal, Key, now
from muxer.masking import Mask
from muxer.observe.logs import about

log = logging.getLogger(__name__)


class Reporter:
    """A ledger (:class:`muxer.work.Ledger`) that sends events. Safe to use from any thread."""

    def __init__(
        self, tell: Callable[[Event], None], name: str, mask: Mask, message: Callable[[], str] = lambda: ""
    ) -> None:
        """Given what sends an event, the name of this worker, what removes secrets, and what returns the id of the message
        whose order this thread works on."""
        self._tell, self._name, self._mask, self._message = tell, name, mask, message
        # Says how often a failed target may be tried at once, by the rules of the pollers' journals.
        self._rules = Journal(None)

    def begun(self, key: Key) -> None:
        """Tell that a target is begun."""
        self._send(events.BEGUN, key)

    def postponed(self, key: Key) -> None:
        """Tell that a target waits for a service: the next poll brings it again."""
        with about(key.recording):
            # Each poll brings each of them again: an outage has thousands.
            log.debug("not begun, a service that it needs is out; the next poll brings it again")
        self._send(events.POSTPONED, key)

    def dropped(self, key: Key) -> None:
        """Tell that an order is dropped, because another one for the same target is being worked on."""
        with about(key.recording):
            log.info("another order for the same file is being worked on; this one is dropped")
        self._send(events.DROPPED, key)

    def done(self, key: Key, outcome: str, facts: Mapping[str, Any]) -> None:
        """Tell that nothing is left to do for a target."""
        self._rules.done(key, now(), {})
        self._send(events.DONE, key, outcome=outcome, facts=dict(facts))

    def failed(self, key: Key, failure: Failure, level: int, error: Exception | None, last: bool) -> bool:
        """Log and tell that an attempt has failed. What follows from it is the pollers' to say; here is only decided whether
        this worker may try it again at once."""
        again = self._rules.failed(key, failure, now()).retry_at is not None
        with about(key.recording):
            fields = {"code": failure.code, "file": key.name}
            log.log(level, "attempt failed: %s", failure.told, extra={"fields": fields}, exc_info=error)
        told = {**vars(failure), "reason": self._mask(failure.reason)[:LONGEST_REASON]}
        self._send(events.FAILED, key, failure=told, level=level, more=again and not last)
        return again

    def refused(self, key: Key, reason: str) -> None:
        """Tell that an order is none that this worker can read."""
        self._send(events.REFUSED, key, reason=reason)

    def _send(self, what: str, key: Key, **details: Any) -> None:
        known = {"agent": key.agent, "message": self._message()}
        details |= {name: value for name, value in known.items() if value}
        self._tell(Event(what, self._name, key.recording, key.name, details))
