"""Health checks: whether the process is alive and whether it can do its work, with the reasons why not."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from muxer.gir.session import CONNECT_TIMEOUT_SECONDS, READ_ATTEMPTS
from muxer.journal.retry_policy import MAX_STEP_DELAY_SECONDS
from muxer.monitoring.view import ViewSources, current_correction_need, current_fleet, known_services
from muxer.status.fleet_status import fleet_problems
from muxer.status.poll_age import expected_seconds, overdue_seconds, poll_progress

# The main loop runs twice a second; a clean-up of a slow disk may delay it.
MAX_LOOP_SECONDS = 60.0
# Time of a poll beyond its requests to RWS: storages have separate limits.
POLL_MARGIN_SECONDS = 120.0


def liveness_problems(sources: ViewSources) -> tuple[str, ...]:
    """Return why the process should be restarted; empty when it is alive."""
    heartbeat, now = sources.heartbeat, time.monotonic()
    reasons = []
    if now - heartbeat.ticked > MAX_LOOP_SECONDS:
        reasons.append(f"the main loop has not run for {now - heartbeat.ticked:.0f} s")
    # Read before the flag: the thread that stops waiting sets the time first.
    since = now - heartbeat.polled
    if not heartbeat.waits and since > max_poll_silence(sources.config.htcc.rws_timeout):
        reasons.append(f"the poll has made no progress for {since:.0f} s")
    return tuple(reasons)


def max_poll_silence(rws_timeout: float) -> float:
    """Return the longest time, in seconds, in which a poll may make no progress, with `rws_timeout` for a request."""
    delays = (READ_ATTEMPTS - 1) * MAX_STEP_DELAY_SECONDS
    return READ_ATTEMPTS * (rws_timeout + CONNECT_TIMEOUT_SECONDS) + delays + POLL_MARGIN_SECONDS


def readiness_problems(sources: ViewSources) -> tuple[str, ...]:
    """Return what prevents the muxer from working; empty when nothing does."""
    down = [service for service in known_services(sources) if not service.up]
    reasons = [f"{service.name} is unavailable since {_iso_time(service.since)}: {service.reason}" for service in down]
    if (fleet := current_fleet(sources)) is not None:
        reasons += fleet_problems(fleet, {service.name for service in down})
    if not sources.disk.has_room():
        reasons.append("the disk of temp_dir is nearly full: no new recording is started")
    if not sources.is_journal_kept():
        reasons.append("the journal cannot be written: failures are kept in memory only")
    if not sources.is_migration:
        reasons += map(sources.secret_mask, _poll_problems(sources, time.time()))
    if (need := current_correction_need(sources, time.time())) is not None:
        reasons.append(need.text)
    return (*liveness_problems(sources), *reasons)


def _poll_problems(sources: ViewSources, now: float) -> list[str]:
    polls, is_busy = sources.activity.take_snapshot().polls, sources.heartbeat.is_busy
    error = f"; the last one failed: {polls.error}" if polls.error and polls.failed else ""
    if polls.last_success is None:
        return [] if is_busy else [f"no poll has succeeded yet{error}"]
    took = expected_seconds(polls.seconds, polls.whole_seconds, poll_progress(polls, sources.heartbeat))
    late = overdue_seconds(polls.last_success, took, now, sources.poll_interval, is_busy=is_busy)
    return [] if late is None else [f"no poll has succeeded for {late:.0f} s{error}"]


def _iso_time(at: float | None) -> str:
    return "an unknown time" if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
