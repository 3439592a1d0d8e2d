"""What a worker does with one target, in this process or on another machine: attempts, and what became of each, told to a
ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from muxer.errors import (
    MediaIncomplete,
    MediaNotFound,
    MuxerError,
    ServiceUnavailable,
    Stopped,
    StoredByOtherMuxer,
    Transient,
)
from muxer.gir.targets import MuxTarget
from muxer.journal.journal import TargetKey
from muxer.journal.retry_policy import FLAKY_DELAY_SECONDS, Failure, classify_error
from muxer.log.setup import recording_context
from muxer.net.circuit_breaker import RWS, CircuitBreaker
from muxer.pipeline.job import Job, JobReport, needed_services
from muxer.status.activity import Activity

log = logging.getLogger(__name__)

MIGRATION_ATTEMPTS = 4
MIGRATION_WAIT_SECONDS = 2.0
MUXED, ALREADY_DONE, FAILED = "muxed", "already done", "failed"


class OutcomeSink(Protocol):
    """Where it is noted what becomes of targets."""

    def record_start(self, key: TargetKey) -> None:
        """A worker has begun a target."""

    def record_postponed(self, key: TargetKey) -> None:
        """A target was not begun, because a service that it needs is out; a later poll brings it again."""

    def record_done(self, key: TargetKey, outcome: str, facts: Mapping[str, Any]) -> None:
        """Nothing is left to do for a target: how it ended, and what its finished line says."""

    def record_failure(self, key: TargetKey, failure: Failure, level: int, error: Exception | None, last: bool) -> bool:
        """An attempt has failed; ``level`` is the one at which that is logged, ``error`` given where nobody expected it;
        ``last`` = this worker makes no further one now. Return whether the target may be tried again."""


class TargetProcessor:
    """Does targets. Safe to use from several threads."""

    def __init__(
        self, job: Job, outages: CircuitBreaker, activity: Activity, stop: threading.Event, ledger: OutcomeSink
    ) -> None:
        self._job = job
        self._outages = outages
        self._activity = activity
        self._stop = stop
        self._ledger = ledger

    def process_target(self, target: MuxTarget, attempts: int = 1) -> None:
        """Given a target and how often it may be tried at once, run its job and tell the ledger what became of it. With one
        attempt it waits while a service that it needs is out; with more, as in a migration, no later poll would bring it
        again. Raise :class:`Stopped`."""
        key = target_key(target)
        if attempts == 1 and not self._outages.try_half_open(needed_services(target)):
            self._ledger.record_postponed(key)
            return
        self._ledger.record_start(key)
        self._attempt_repeatedly(key, attempts, lambda: self._run_job(target))

    def find_and_process(self, key: TargetKey, attempts: int) -> None:
        """Given what a target is known by, read it from RWS and go on as :meth:`do` does."""
        if attempts == 1 and not self._outages.try_half_open({RWS}):
            self._ledger.record_postponed(key)
            return
        self._ledger.record_start(key)
        self._attempt_repeatedly(key, attempts, lambda: self._find_and_run(key, attempts))

    def _find_and_run(self, key: TargetKey, attempts: int) -> JobReport | None:
        """Return what was done for a target that is read first; None when it must wait for a service."""
        with recording_context(key.recording):
            target = self._job.find_target(key.recording, key.name)
        if target is None:
            return JobReport()
        if attempts == 1 and not self._outages.try_half_open(needed_services(target)):
            return None
        return self._run_job(target, fresh=True)

    def _run_job(self, target: MuxTarget, fresh: bool = False) -> JobReport:
        with self._activity.track_target(target.recording_id, target.agent, target.file_name):
            return self._job.run(target, fresh=fresh)

    def _attempt_repeatedly(self, key: TargetKey, attempts: int, body: Callable[[], JobReport | None]) -> None:
        for attempt in range(1, attempts + 1):
            try:
                report = body()
            except Stopped as error:
                with recording_context(key.recording):
                    log.info("%s", error)
                raise
            except Exception as error:
                if not self._record_failure(key, error, last=attempt == attempts):
                    break
                if self._stop.wait(MIGRATION_WAIT_SECONDS * 2.0 ** (attempt - 1)):
                    raise Stopped("stopped before another attempt") from error
            else:
                self._record_result(key, report)
                return
        self._activity.count_outcome(FAILED, {})

    def _record_result(self, key: TargetKey, report: JobReport | None) -> None:
        if report is None:
            self._ledger.record_postponed(key)
            return
        outcome = MUXED if report.muxed else ALREADY_DONE
        self._ledger.record_done(key, outcome, {**report.facts, "timeline": report.timeline})
        self._activity.count_outcome(outcome, report.facts)

    def _record_failure(self, key: TargetKey, error: Exception, last: bool) -> bool:
        """Tell of a failed attempt; return whether there is to be another one at once."""
        failure = classify_error(error)
        if isinstance(error, ServiceUnavailable) and error.retry_after is None and self._outages.is_flaky(error.service):
            failure = replace(failure, retry_after=FLAKY_DELAY_SECONDS)
        self._activity.count_error(failure.service, failure.error)
        unexpected = None if isinstance(error, MuxerError) else error
        return self._ledger.record_failure(key, failure, self._failure_log_level(error), unexpected, last) and not last

    def _failure_log_level(self, error: Exception) -> int:
        """Return the level at which a failure is logged: an outage has its own line, and what will come is no error."""
        if isinstance(error, Transient) and self._outages.is_open(error.service):
            return logging.INFO
        if isinstance(error, MediaIncomplete) and error.warned_once:
            return logging.INFO
        return logging.WARNING if isinstance(error, MediaNotFound | StoredByOtherMuxer) else logging.ERROR


def target_key(target: MuxTarget) -> TargetKey:
    """Given a target, return what the journal knows it by."""
    return TargetKey(target.file_name, target.recording_id, target.agent)
