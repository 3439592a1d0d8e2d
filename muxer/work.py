"""What a worker does with one target, in this process or on another machine: attempts, and what became of each, told to a
ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from muxer.activity import Activity
from muxer.errors import MediaNotFound, MuxerError, Stopped, StoredElsewhere, Transient
from muxer.failures import Failure, failure_of
from muxer.job import Job, services_of
from muxer.journal import Key
from muxer.observe.logs import about
from muxer.outages import Outages
from muxer.selection import MuxTarget

log = logging.getLogger(__name__)

MIGRATION_ATTEMPTS = 4
MIGRATION_WAIT_SECONDS = 2.0
MUXED, ALREADY_DONE, FAILED = "muxed", "already done", "failed"


class Ledger(Protocol):
    """Where it is noted what becomes of targets."""

    def begun(self, key: Key) -> None:
        """A worker has begun a target."""

    def postponed(self, key: Key) -> None:
        """A target was not begun, because a service that it needs is out; a later poll brings it again."""

    def done(self, key: Key, outcome: str, facts: Mapping[str, Any]) -> None:
        """Nothing is left to do for a target: how it ended, and what its finished line says."""

    def failed(self, key: Key, failure: Failure, level: int, error: Exception | None) -> bool:
        """An attempt has failed; ``level`` is the one at which that is logged, ``error`` given where nobody expected it.
        Return whether the target may be tried again."""


class Work:
    """Does targets. Safe to use from several threads."""

    def __init__(self, job: Job, outages: Outages, activity: Activity, stop: threading.Event, ledger: Ledger) -> None:
        self._job = job
        self._outages = outages
        self._activity = activity
        self._stop = stop
        self._ledger = ledger

    def do(self, target: MuxTarget, attempts: int = 1) -> None:
        """Given a target and how often it may be tried at once, run its job and tell the ledger what became of it. With one
        attempt it waits while a service that it needs is out; with more, as in a migration, no later poll would bring it
        again. Raise :class:`Stopped`."""
        key = key_of(target)
        if attempts == 1 and not self._outages.admit(services_of(target)):
            self._ledger.postponed(key)
            return
        self._ledger.begun(key)
        for attempt in range(1, attempts + 1):
            try:
                with self._activity.job(target):
                    report = self._job.run(target)
            except Stopped as error:
                with about(target.recording_id):
                    log.info("%s", error)
                raise
            except Exception as error:
                again = self._failed(key, error)
                wait = MIGRATION_WAIT_SECONDS * 2.0 ** (attempt - 1)
                if not again or attempt == attempts or self._stop.wait(wait):
                    break
            else:
                outcome = MUXED if report.muxed else ALREADY_DONE
                self._ledger.done(key, outcome, {**report.facts, "timeline": report.timeline})
                self._activity.finished(outcome, report.facts)
                return
        self._activity.finished(FAILED, {})

    def _failed(self, key: Key, error: Exception) -> bool:
        failure = failure_of(error)
        self._activity.erred(failure.service, failure.error)
        return self._ledger.failed(key, failure, self._weight(error), None if isinstance(error, MuxerError) else error)

    def _weight(self, error: Exception) -> int:
        """Return the level at which a failure is logged: an outage has its own line, and what will come is no error."""
        if isinstance(error, Transient) and self._outages.is_out(error.service):
            return logging.INFO
        return logging.WARNING if isinstance(error, MediaNotFound | StoredElsewhere) else logging.ERROR


def key_of(target: MuxTarget) -> Key:
    """Given a target, return what the journal knows it by."""
    return Key(target.name, target.recording_id, target.agent)
