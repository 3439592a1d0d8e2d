"""What a worker does with one target, in this process or on another machine: attempts, and what became of each, told to a
ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from muxer.activity import Activity
from muxer.errors import MediaIncomplete, MediaNotFound, MuxerError, ServiceUnavailable, Stopped, StoredElsewhere, Transient
from muxer.failures import FLAKY_DELAY_SECONDS, Failure, failure_of
from muxer.job import Job, Report, services_of
from muxer.journal import Key
from muxer.observe.logs import about
from muxer.outages import RWS, Outages
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

    def failed(self, key: Key, failure: Failure, level: int, error: Exception | None, last: bool) -> bool:
        """An attempt has failed; ``level`` is the one at which that is logged, ``error`` given where nobody expected it;
        ``last`` = this worker makes no further one now. Return whether the target may be tried again."""


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
        self._try(key, attempts, lambda: self._job_of(target))

    def find_and_do(self, key: Key, attempts: int) -> None:
        """Given what a target is known by, read it from RWS and go on as :meth:`do` does."""
        if attempts == 1 and not self._outages.admit({RWS}):
            self._ledger.postponed(key)
            return
        self._ledger.begun(key)
        self._try(key, attempts, lambda: self._found(key, attempts))

    def _found(self, key: Key, attempts: int) -> Report | None:
        """Return what was done for a target that is read first; None when it must wait for a service."""
        with about(key.recording):
            target = self._job.find(key.recording, key.name)
        if target is None:
            return Report()
        if attempts == 1 and not self._outages.admit(services_of(target)):
            return None
        return self._job_of(target, fresh=True)

    def _job_of(self, target: MuxTarget, fresh: bool = False) -> Report:
        with self._activity.job(target):
            return self._job.run(target, fresh=fresh)

    def _try(self, key: Key, attempts: int, body: Callable[[], Report | None]) -> None:
        for attempt in range(1, attempts + 1):
            try:
                report = body()
            except Stopped as error:
                with about(key.recording):
                    log.info("%s", error)
                raise
            except Exception as error:
                if not self._failed(key, error, last=attempt == attempts):
                    break
                if self._stop.wait(MIGRATION_WAIT_SECONDS * 2.0 ** (attempt - 1)):
                    raise Stopped("stopped before another attempt") from error
            else:
                self._end(key, report)
                return
        self._activity.finished(FAILED, {})

    def _end(self, key: Key, report: Report | None) -> None:
        if report is None:
            self._ledger.postponed(key)
            return
        outcome = MUXED if report.muxed else ALREADY_DONE
        self._ledger.done(key, outcome, {**report.facts, "timeline": report.timeline})
        self._activity.finished(outcome, report.facts)

    def _failed(self, key: Key, error: Exception, last: bool) -> bool:
        """Tell of a failed attempt; return whether there is to be another one at once."""
        failure = failure_of(error)
        if isinstance(error, ServiceUnavailable) and error.retry_after is None and self._outages.is_flaky(error.service):
            failure = replace(failure, retry_after=FLAKY_DELAY_SECONDS)
        self._activity.erred(failure.service, failure.error)
        unexpected = None if isinstance(error, MuxerError) else error
        return self._ledger.failed(key, failure, self._weight(error), unexpected, last) and not last

    def _weight(self, error: Exception) -> int:
        """Return the level at which a failure is logged: an outage has its own line, and what will come is no error."""
        if isinstance(error, Transient) and self._outages.is_out(error.service):
            return logging.INFO
        if isinstance(error, MediaIncomplete) and error.warned_once:
            return logging.INFO
        return logging.WARNING if isinstance(error, MediaNotFound | StoredElsewhere) else logging.ERROR


def key_of(target: MuxTarget) -> Key:
    """Given a target, return what the journal knows it by."""
    return Key(target.name, target.recording_id, target.agent)
