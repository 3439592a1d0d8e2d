"""Everything that the status page shows, gathered at one moment: from memory, and from the journal as it is on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from muxer import __version__
from muxer.activity import Activity, Running, Snapshot
from muxer.config.schema import Config
from muxer.disk import Disk
from muxer.fleet.view import FleetView, masked
from muxer.gir.deviations import Deviations
from muxer.gir.rws import Certificate
from muxer.journal import Sample
from muxer.masking import Mask
from muxer.monitoring import history
from muxer.monitoring.history import Hour, Row
from muxer.outages import Outages
from muxer.pulse import Pulse

__all__ = ["Hour", "Room", "Row", "Sample", "Service", "Sources", "View", "gather"]


@dataclass(frozen=True)
class Service:
    """A service that was talked to: whether it is up, since when it is out and why, when it last did what was asked."""

    name: str
    up: bool
    since: float | None = None
    reason: str = ""
    last_success: float | None = None


@dataclass(frozen=True)
class Room:
    """The disk of the temporary folder, in bytes. Below ``reserved`` no recording is begun; ``has_room`` = it may be."""

    free: int
    reserved: int
    has_room: bool


@dataclass(frozen=True)
class View:
    """How the muxer stands ``at`` a moment. Times are epoch seconds; ``is_busy`` = a poll waits for workers;
    ``is_migration`` = this is a single run, which has no polls. No secret is in it."""

    instance: str
    version: str
    at: float
    snapshot: Snapshot
    queued: int
    workers: int
    services: tuple[Service, ...]
    counts: dict[str, int]
    recent: tuple[Row, ...]
    failures: tuple[Row, ...]
    hours: tuple[Hour, ...]
    samples: tuple[Sample, ...]
    interval_seconds: float
    is_busy: bool
    is_migration: bool
    next_poll: float | None
    disk: Room | None
    warnings: tuple[str, ...]
    fleet: FleetView | None = None

    @property
    def running(self) -> tuple[tuple[str, Running], ...]:
        """What runs, longest first, with the worker of the fleet that does it; its name is empty for this process."""
        found = self.fleet.jobs if self.fleet else tuple(("", one) for one in self.snapshot.running)
        return tuple(sorted(found, key=lambda one: one[1].begun))


@dataclass(frozen=True)
class Sources:
    """Where what is shown comes from. ``journal`` = its path, None when there is none (a migration); ``held`` = how many
    targets are queued or running; ``recipients`` = the certificates that RWS told last; ``warnings`` = what is odd about
    the configuration; ``fleet`` = how the fleet stands, None where this process does the work itself; ``deviations`` = what
    RWS and RCS do differently from docs/gir-api.md."""

    config: Config
    activity: Activity
    outages: Outages
    disk: Disk
    pulse: Pulse
    journal: Path | None
    is_journal_kept: Callable[[], bool]
    held: Callable[[], int]
    recipients: Callable[[], tuple[Certificate, ...]]
    warnings: tuple[str, ...] = ()
    fleet: Callable[[], FleetView | None] = lambda: None
    deviations: Deviations = field(default_factory=Deviations)

    @cached_property
    def mask(self) -> Mask:
        """What removes secrets from a text."""
        return Mask(self.config.secrets)

    @property
    def interval(self) -> float:
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


def gather(sources: Sources) -> View:
    """Given the sources, return how things stand now. It never waits for the muxer, and the muxer never for it."""
    snapshot = sources.activity.snapshot()
    past, fleet = history.read(sources.journal, snapshot.at), fleet_of(sources)
    return View(
        instance=sources.config.instance,
        version=__version__,
        at=snapshot.at,
        snapshot=replace(snapshot, polls=replace(snapshot.polls, error=sources.mask(snapshot.polls.error))),
        queued=max(0, sources.held() - len(snapshot.running)) if fleet is None else fleet.queued,
        workers=sources.config.advanced.worker_threads if fleet is None else fleet.threads,
        services=services(sources),
        counts=past.counts,
        recent=past.recent,
        failures=past.failures,
        hours=past.hours,
        samples=past.samples,
        interval_seconds=sources.interval,
        is_busy=sources.pulse.is_busy,
        is_migration=sources.is_migration,
        next_poll=snapshot.polls.next_due,
        disk=room(sources.disk),
        warnings=(*sources.warnings, *filter(None, (past.problem,))),
        fleet=fleet,
    )


def services(sources: Sources) -> tuple[Service, ...]:
    """Return the services that are known, in the order of their names."""
    return tuple(
        Service(one.name, one.since is None, one.since, sources.mask(one.reason), one.last_success)
        for one in sources.outages.standings()
    )


def fleet_of(sources: Sources) -> FleetView | None:
    """Return how the fleet stands; None where there is none."""
    found = sources.fleet()
    return None if found is None else masked(found, sources.mask)


def room(disk: Disk) -> Room | None:
    """Return what was last measured of a disk; None when that tells nothing."""
    return None if disk.measured is None else Room(*disk.measured, disk.has_room())
