"""Process one target, here or on another machine: make attempts, and report each outcome to an outcome sink."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from muxer.errors import (
    MediaIncomplete,
    MediaNotFound,
    MetadataError,
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
# No later poll of a migration finds the recording as it is now.
OUTDATED_TEXT = (
    "its sources have changed since the query was read, or RWS does not show them now; run the migration again "
    "(in a fleet, all workers need the [advanced] blank_paused of the poller)"
)
MUXED, ALREADY_DONE, FAILED = "muxed", "already done", "failed"


class OutcomeSink(Protocol):
    """Receives the outcomes of targets."""

    def record_start(self, key: TargetKey) -> None:
        """Record that a worker has started a target."""

    def record_postponed(self, key: TargetKey) -> None:
        """Record that a target was not started because a service is unavailable; a later poll submits it again."""

    def record_done(self, key: TargetKey, outcome: str, facts: Mapping[str, Any]) -> None:
        """Record that a target needs no more work. `facts` are the fields of its finished line."""

    def record_failure(self, key: TargetKey, failure: Failure, level: int, error: Exception | None, last: bool) -> bool:
        """Record a failure; return whether to try again. `error` is an unexpected one, `last` this worker's last attempt."""


class TargetProcessor:
    """Processes targets. Safe to use from several threads."""

    def __init__(
        self, job: Job, circuit_breaker: CircuitBreaker, activity: Activity, stop: threading.Event, outcomes: OutcomeSink
    ) -> None:
        self._job = job
        self._circuit_breaker = circuit_breaker
        self._activity = activity
        self._stop = stop
        self._outcomes = outcomes

    def process_target(self, target: MuxTarget, attempts: int = 1) -> None:
        """Run the job of `target`, up to `attempts` times in a row (a migration), and record the outcome. Raises Stopped."""
        key = target_key(target)
        if attempts == 1 and not self._circuit_breaker.try_half_open(needed_services(target)):
            self._outcomes.record_postponed(key)
            return
        self._outcomes.record_start(key)
        self._attempt_repeatedly(key, attempts, lambda: self._run_job(target))

    def find_and_process(self, key: TargetKey, attempts: int) -> None:
        """Read the target with this `key` from RWS and process it as process_target does."""
        if attempts == 1 and not self._circuit_breaker.try_half_open({RWS}):
            self._outcomes.record_postponed(key)
            return
        self._outcomes.record_start(key)
        self._attempt_repeatedly(key, attempts, lambda: self._find_and_run(key, attempts))

    def _find_and_run(self, key: TargetKey, attempts: int) -> JobReport | None:
        """Read a target and run its job. Returns None when it must wait for a service."""
        with recording_context(key.recording):
            target = self._job.find_target(key.recording, key.name)
        if target is None:
            return JobReport(is_outdated=True)
        if attempts == 1 and not self._circuit_breaker.try_half_open(needed_services(target)):
            return None
        return self._run_job(target, fresh=True)

    def _run_job(self, target: MuxTarget, fresh: bool = False) -> JobReport:
        with self._activity.track_target(target.recording_id, target.agent, target.file_name):
            return self._job.run(target, fresh=fresh)

    def _attempt_repeatedly(self, key: TargetKey, attempts: int, run_attempt: Callable[[], JobReport | None]) -> None:
        for attempt in range(1, attempts + 1):
            try:
                report = run_attempt()
                if attempts > 1 and report is not None and report.is_outdated:
                    raise MetadataError(OUTDATED_TEXT)
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
            self._outcomes.record_postponed(key)
            return
        outcome = MUXED if report.muxed else ALREADY_DONE
        self._outcomes.record_done(key, outcome, {**report.facts, "timeline": report.timeline})
        self._activity.count_outcome(outcome, report.facts)

    def _record_failure(self, key: TargetKey, error: Exception, last: bool) -> bool:
        """Record a failed attempt. Returns whether to try again at once."""
        failure = classify_error(error)
        if (
            isinstance(error, ServiceUnavailable)
            and error.retry_after is None
            and self._circuit_breaker.is_flaky(error.service)
        ):
            failure = replace(failure, retry_after=FLAKY_DELAY_SECONDS)
        self._activity.count_error(failure.service, failure.error)
        unexpected = None if isinstance(error, MuxerError) else error
        return self._outcomes.record_failure(key, failure, self._failure_log_level(error), unexpected, last) and not last

    def _failure_log_level(self, error: Exception) -> int:
        """Return the level at which a failure is logged: an outage has its own line, and an incomplete file is no error."""
        if isinstance(error, Transient) and self._circuit_breaker.is_open(error.service):
            return logging.INFO
        if isinstance(error, MediaIncomplete) and error.warned_once:
            return logging.INFO
        return logging.WARNING if isinstance(error, MediaNotFound | StoredByOtherMuxer) else logging.ERROR


def target_key(target: MuxTarget) -> TargetKey:
    """Return the key of `target` in the journal."""
    return TargetKey(target.file_name, target.recording_id, target.agent)
