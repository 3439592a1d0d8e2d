"""What the status page tells of a fleet: its lanes, and a row for each worker. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from muxer.status.fleet_status import FleetStatus, WorkerStatus, is_silent
from muxer.status.formatting import redact, single_line

# More workers than that are counted: the page stays one that can be read.
MAX_SHOWN = 100


@dataclass(frozen=True)
class WorkerRow:
    """A worker: when it was seen last and whether it is silent since, how many of its threads are at work, what it has done,
    and the services that are out for it, each with the reason."""

    name: str
    version: str
    is_silent: bool
    seen: float
    running: int
    threads: int
    muxed: int
    failed: int
    rate: str
    out: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FleetSummary:
    """The fleet: the lanes with what waits in them (None while nobody knows), workers, the silent ones first, and how many
    more there are."""

    connected: bool
    living: int
    threads: int
    rate: str
    queued: int
    oldest: float | None
    dead: int | None
    lanes: tuple[tuple[str, int | None], ...]
    workers: tuple[WorkerRow, ...]
    more: int


def fleet_summary(view: FleetStatus) -> FleetSummary:
    """Given how the fleet stands, return what the page tells of it."""
    workers = sorted((worker_row(one, view.at) for one in view.workers), key=lambda one: (not one.is_silent, one.name))
    return FleetSummary(
        connected=view.connected,
        living=len(view.live_workers),
        threads=view.thread_count,
        rate=f"{view.hourly_rate:.0f}",
        queued=view.queued,
        oldest=view.oldest,
        dead=view.dead if view.connected else None,
        lanes=tuple((single_line(name), count if view.connected else None) for name, count in view.lanes.items()),
        workers=tuple(workers[:MAX_SHOWN]),
        more=max(0, len(workers) - MAX_SHOWN),
    )


def worker_row(one: WorkerStatus, now: float) -> WorkerRow:
    """Given a worker and the time, return its row."""
    out = tuple((single_line(name), redact(reason)) for name, reason in one.out.items())
    numbers = (len(one.running), one.threads, one.muxed, one.failed)
    return WorkerRow(
        single_line(one.name), single_line(one.version), is_silent(one, now), one.seen, *numbers, f"{one.rate:.0f}", out
    )
