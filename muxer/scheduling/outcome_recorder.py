"""Records the outcome of each target in the journal and the log, and counts those of a migration."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from muxer.journal.journal import Journal, TargetKey, epoch_now
from muxer.journal.retry_policy import Failure
from muxer.log.setup import recording_context
from muxer.scheduling.attempts import MUXED

log = logging.getLogger(__name__)


class OutcomeRecorder:
    """The outcome sink on the journal. `failures` (of a migration) maps targets to recording and reason."""

    def __init__(self, journal: Journal, migration: bool) -> None:
        self._journal = journal
        self._migration = migration
        self._lock = threading.Lock()
        self.muxed = 0
        self.failures: dict[str, tuple[str, str]] = {}
        # Called for each recording that is set aside, except in a migration; must return at once.
        self.on_set_aside: Callable[[TargetKey, Failure], None] = lambda key, failure: None

    def record_start(self, key: TargetKey) -> None:
        """Record that a worker has started a target."""
        self._journal.record_running(key, epoch_now())

    def record_postponed(self, key: TargetKey) -> None:
        """Do nothing: the target is still wanted."""

    def record_done(self, key: TargetKey, outcome: str, facts: Mapping[str, Any]) -> None:
        """Record that a target needs no more work."""
        self._journal.record_done(key, epoch_now(), facts, is_muxed=outcome == MUXED)
        with self._lock:
            self.failures.pop(key.name, None)
            self.muxed += outcome == MUXED

    def record_failure(
        self, key: TargetKey, failure: Failure, level: int, error: Exception | None, last: bool = True, worker: str = ""
    ) -> bool:
        """Record and log a failure, of `worker` when it is one of a fleet. Returns whether the target may be tried again."""
        entry = self._journal.record_failure(key, failure, epoch_now())
        if self._migration:
            with self._lock:
                self.failures[key.name] = (key.recording, failure.text)
        message = "recording set aside: %s" if entry.retry_at is None else "recording failed, retried later: %s"
        fields = {"code": failure.code, "agent": key.agent, "file": key.name, "attempt": entry.attempts}
        fields |= {"worker": worker} if worker else {}
        with recording_context(key.recording):
            log.log(level, message, failure.text, extra={"fields": fields}, exc_info=error)
        if entry.retry_at is None and not self._migration:
            self.on_set_aside(key, failure)
        return entry.retry_at is not None
