"""The books of a muxer: what became of each target goes into the journal and the log, and into the sums of a migration."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from muxer.journal.journal import Journal, TargetKey, epoch_now
from muxer.journal.retry_policy import Failure
from muxer.log.setup import recording_context
from muxer.scheduling.attempts import MUXED

log = logging.getLogger(__name__)


class OutcomeRecorder:
    """A ledger (:class:`muxer.scheduling.attempts.Ledger`) on the journal. ``muxed`` counts since the start; ``failures``, kept for a
    migration only, are recording and reason of each target that has failed last."""

    def __init__(self, journal: Journal, migration: bool) -> None:
        self._journal = journal
        self._migration = migration
        self._lock = threading.Lock()
        self.muxed = 0
        self.failures: dict[str, tuple[str, str]] = {}

    def record_start(self, key: TargetKey) -> None:
        """Note that a worker has begun a target."""
        self._journal.record_running(key, epoch_now())

    def record_postponed(self, key: TargetKey) -> None:
        """Note nothing: the target is still wanted."""

    def record_done(self, key: TargetKey, outcome: str, facts: Mapping[str, Any]) -> None:
        """Note that nothing is left to do for a target."""
        self._journal.record_done(key, epoch_now(), facts)
        with self._lock:
            self.failures.pop(key.name, None)
            self.muxed += outcome == MUXED

    def record_failure(
        self, key: TargetKey, failure: Failure, level: int, error: Exception | None, last: bool = True, worker: str = ""
    ) -> bool:
        """Note a failure (of a ``worker`` of the fleet), log it, and return whether the target may be tried again."""
        entry = self._journal.record_failure(key, failure, epoch_now())
        if self._migration:
            with self._lock:
                self.failures[key.name] = (key.recording, failure.text)
        what = "set aside" if entry.retry_at is None else "failed, tried again later"
        fields = {"code": failure.code, "agent": key.agent, "file": key.name, "attempt": entry.attempts}
        fields |= {"worker": worker} if worker else {}
        with recording_context(key.recording):
            log.log(level, "recording %s: %s", what, failure.text, extra={"fields": fields}, exc_info=error)
        return entry.retry_at is not None
