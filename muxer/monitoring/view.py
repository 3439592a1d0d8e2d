"""Everything that the status page shows, gathered at one time from memory and from the journal on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from muxer import __version__
from muxer.config.schema import Config
from muxer.gir.deviations import DeviationLog
from muxer.gir.rws import Certificate
from muxer.journal import history
from muxer.journal.correction_need import CorrectionNeed, find_correction_need
from muxer.journal.history import HourCounts, TargetRecord
from muxer.journal.journal import BacklogSample
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.disk_space import TempDisk
from muxer.status.activity import Activity, ActivitySnapshot, RunningTarget
from muxer.status.fleet_status import FleetStatus, mask_fleet
from muxer.status.heartbeat import Heartbeat
from muxer.status.last_audit import LastAudit
from muxer.status.poll_age import poll_progress
from muxer.system.masking import Mask


@dataclass(frozen=True)
class ServiceStatus:
    """A service that the muxer has called. Texts and `since` are for one that is unavailable (see ServiceState)."""

    name: str
    up: bool
    since: float | None = None
    reason: str = ""
    last_success: float | None = None
    is_reached: bool = True
    remedy: str = ""
    needs_correction: bool = False


@dataclass(frozen=True)
class DiskSpace:
    """The disk of the temporary folder, in bytes. Below `reserved` no recording is started, and `has_room` is false."""

    free: int
    reserved: int
    has_room: bool


@dataclass(frozen=True)
class StatusView:
    """The state of the muxer at the time `at`, without secrets. `is_busy`: a poll waits for workers.

    `poll_progress`: for how many seconds the running poll has made progress.
    """

    instance: str
    version: str
    at: float
    snapshot: ActivitySnapshot
    queued: int
    workers: int
    services: tuple[ServiceStatus, ...]
    counts: dict[str, int]
    recent: tuple[TargetRecord, ...]
    failures: tuple[TargetRecord, ...]
    hours: tuple[HourCounts, ...]
    samples: tuple[BacklogSample, ...]
    interval_seconds: float
    is_busy: bool
    is_migration: bool
    next_poll: float | None
    disk: DiskSpace | None
    warnings: tuple[str, ...]
    fleet: FleetStatus | None = None
    audit: LastAudit = field(default_factory=LastAudit)
    # Names of the site that are shown although they may look like those of persons or numbers.
    known_names: tuple[str, ...] = ()
    poll_progress: float = 0.0
    correction: CorrectionNeed | None = None

    @property
    def running(self) -> tuple[tuple[str, RunningTarget], ...]:
        """The running jobs, the longest first, each after the name of its worker (empty: this process)."""
        jobs = self.fleet.running_jobs if self.fleet else tuple(("", job) for job in self.snapshot.running)
        return tuple(sorted(jobs, key=lambda job: job[1].begun))


@dataclass(frozen=True)
class ViewSources:
    """The objects and functions that the view reads; `fleet` is None without one, `journal` in a migration.

    `held` returns the number of queued and running targets, `recipients` the encryption certificates of RWS.
    """

    config: Config
    activity: Activity
    circuit_breaker: CircuitBreaker
    disk: TempDisk
    heartbeat: Heartbeat
    journal: Path | None
    is_journal_kept: Callable[[], bool]
    held: Callable[[], int]
    recipients: Callable[[], tuple[Certificate, ...]]
    warnings: tuple[str, ...] = ()
    fleet: Callable[[], FleetStatus | None] = lambda: None
    deviations: DeviationLog = field(default_factory=DeviationLog)
    audit: Callable[[], LastAudit] = LastAudit

    @cached_property
    def secret_mask(self) -> Mask:
        """The mask for the secrets of the configuration."""
        return Mask(self.config.secret_values)

    @property
    def poll_interval(self) -> float:
        """Seconds from the start of one poll to the next."""
        return self.config.processing.min_poll_interval * 60

    @property
    def is_rcs_unused(self) -> bool:
        """Whether no RCS is configured."""
        return self.config.rcs.base_uri is None

    @property
    def is_migration(self) -> bool:
        """Whether this is a single run over the results of a query."""
        return bool(self.config.advanced.call_recording_query_string)


def gather_status(sources: ViewSources) -> StatusView:
    """Return the current state. This never waits for the muxer, and the muxer never waits for this."""
    snapshot = sources.activity.take_snapshot()
    past, fleet = history.read_history(sources.journal, snapshot.at), current_fleet(sources)
    return StatusView(
        instance=sources.config.instance_name,
        version=__version__,
        at=snapshot.at,
        snapshot=replace(snapshot, polls=replace(snapshot.polls, error=sources.secret_mask(snapshot.polls.error))),
        queued=max(0, sources.held() - len(snapshot.running)) if fleet is None else fleet.queued,
        workers=sources.config.advanced.worker_threads if fleet is None else fleet.thread_count,
        services=known_services(sources),
        counts=past.counts,
        recent=past.recent,
        failures=past.failures,
        hours=past.hours,
        samples=past.samples,
        interval_seconds=sources.poll_interval,
        is_busy=sources.heartbeat.is_busy,
        is_migration=sources.is_migration,
        next_poll=snapshot.polls.next_due,
        disk=measured_space(sources.disk),
        warnings=(*sources.warnings, *filter(None, (past.problem,))),
        fleet=fleet,
        audit=sources.audit(),
        known_names=tuple(filter(None, (sources.config.htcc.contact_center_id,))),
        poll_progress=poll_progress(snapshot.polls, sources.heartbeat),
        correction=find_correction_need(past.since_muxed, snapshot.at),
    )


def known_services(sources: ViewSources) -> tuple[ServiceStatus, ...]:
    """Return the services that have been called, sorted by name."""
    return tuple(
        ServiceStatus(
            state.name,
            state.since is None,
            state.since,
            sources.secret_mask(state.full_reason),
            state.last_success,
            state.is_reached,
            sources.secret_mask(state.remedy),
            state.needs_correction,
        )
        for state in sources.circuit_breaker.service_states()
    )


def current_fleet(sources: ViewSources) -> FleetStatus | None:
    """Return the state of the fleet without secrets; None when there is no fleet."""
    fleet = sources.fleet()
    return None if fleet is None else mask_fleet(fleet, sources.secret_mask)


def current_correction_need(sources: ViewSources, now: float) -> CorrectionNeed | None:
    """Return whether nothing is muxed until a person corrects something; None also when the journal cannot be read."""
    failures = history.read_failures_since_muxed(sources.journal)
    return None if failures is None else find_correction_need(failures, now)


def measured_space(disk: TempDisk) -> DiskSpace | None:
    """Return the last measurement of a disk; None before the first one."""
    return None if disk.measured is None else DiskSpace(*disk.measured, disk.has_room())
