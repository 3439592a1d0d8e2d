"""Everything that the status page shows, gathered at one moment: from memory, and from the journal as it is on disk."""

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
from muxer.journal.history import HourCounts, TargetRecord
from muxer.journal.journal import BacklogSample
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.disk_space import TempDisk
from muxer.status.activity import Activity, ActivitySnapshot, RunningTarget
from muxer.status.fleet_status import FleetStatus, mask_fleet
from muxer.status.heartbeat import Heartbeat
from muxer.system.masking import Mask

__all__ = [
    "BacklogSample",
    "DiskSpace",
    "HourCounts",
    "ServiceStatus",
    "StatusView",
    "TargetRecord",
    "ViewSources",
    "gather_status",
]


@dataclass(frozen=True)
class ServiceStatus:
    """A service that was talked to: whether it is up, since when it is out and why, when it last did what was asked."""

    name: str
    up: bool
    since: float | None = None
    reason: str = ""
    last_success: float | None = None


@dataclass(frozen=True)
class DiskSpace:
    """The disk of the temporary folder, in bytes. Below ``reserved`` no recording is begun; ``has_room`` = it may be."""

    free: int
    reserved: int
    has_room: bool


@dataclass(frozen=True)
class StatusView:
    """How the muxer stands ``at`` a moment. Times are epoch seconds; ``is_busy`` = a poll waits for workers;
    ``is_migration`` = this is a single run, which has no polls. No secret is in it."""

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

    @property
    def running(self) -> tuple[tuple[str, RunningTarget], ...]:
        """What runs, longest first, with the worker of the fleet that does it; its name is empty for this process."""
        found = self.fleet.running_jobs if self.fleet else tuple(("", one) for one in self.snapshot.running)
        return tuple(sorted(found, key=lambda one: one[1].begun))


@dataclass(frozen=True)
class ViewSources:
    """Where what is shown comes from. ``journal`` = its path, None when there is none (a migration); ``held`` = how many
    targets are queued or running; ``recipients`` = the certificates that RWS told last; ``warnings`` = what is odd about
    the configuration; ``fleet`` = how the fleet stands, None where this process does the work itself; ``deviations`` = what
    RWS and RCS do differently from docs/gir-api.md."""

    config: Config
    activity: Activity
    outages: CircuitBreaker
    disk: TempDisk
    pulse: Heartbeat
    journal: Path | None
    is_journal_kept: Callable[[], bool]
    held: Callable[[], int]
    recipients: Callable[[], tuple[Certificate, ...]]
    warnings: tuple[str, ...] = ()
    fleet: Callable[[], FleetStatus | None] = lambda: None
    deviations: DeviationLog = field(default_factory=DeviationLog)

    @cached_property
    def secret_mask(self) -> Mask:
        """What removes secrets from a text."""
        return Mask(self.config.secret_values)

    @property
    def poll_interval(self) -> float:
        """Seconds from the start of one poll to the next."""
        return self.config.processing.min_poll_interval * 60

    @property
    def is_rcs_unused(self) -> bool:
        """Whether there are no encrypted recordings at this site."""
        return self.config.rcs.base_uri is None

    @property
    def is_migration(self) -> bool:
        """Whether this is a single run over what a query finds."""
        return bool(self.config.advanced.call_recording_query_string)


def gather_status(sources: ViewSources) -> StatusView:
    """Given the sources, return how things stand now. It never waits for the muxer, and the muxer never for it."""
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
        is_busy=sources.pulse.is_busy,
        is_migration=sources.is_migration,
        next_poll=snapshot.polls.next_due,
        disk=measured_space(sources.disk),
        warnings=(*sources.warnings, *filter(None, (past.problem,))),
        fleet=fleet,
    )


def known_services(sources: ViewSources) -> tuple[ServiceStatus, ...]:
    """Return the services that are known, in the order of their names."""
    return tuple(
        ServiceStatus(one.name, one.since is None, one.since, sources.secret_mask(one.reason), one.last_success)
        for one in sources.outages.service_states()
    )


def current_fleet(sources: ViewSources) -> FleetStatus | None:
    """Return how the fleet stands; None where there is none."""
    found = sources.fleet()
    return None if found is None else mask_fleet(found, sources.secret_mask)


def measured_space(disk: TempDisk) -> DiskSpace | None:
    """Return what was last measured of a disk; None when that tells nothing."""
    return None if disk.measured is None else DiskSpace(*disk.measured, disk.has_room())
