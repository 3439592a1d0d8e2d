"""The part of the status page on a fleet: its queues, and a row for each worker. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from muxer.status.fleet_status import FleetStatus, WorkerStatus, is_silent
from muxer.status.formatting import redact, single_line

# Further workers are only counted.
MAX_SHOWN = 100


@dataclass(frozen=True)
class WorkerRow:
    """A worker. `running` is the number of its busy threads; `out` are the services unavailable to it, with the reasons."""

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
    """The fleet: `lanes` are queues with their tasks, silent workers come first, `more` are not shown."""

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
    """Return the part of the page on the fleet."""
    workers = sorted((worker_row(worker, view.at) for worker in view.workers), key=lambda row: (not row.is_silent, row.name))
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


def worker_row(worker: WorkerStatus, now: float) -> WorkerRow:
    """Return the row of a worker."""
    return WorkerRow(
        single_line(worker.name),
        single_line(worker.version),
        is_silent(worker, now),
        worker.seen,
        len(worker.running),
        worker.threads,
        worker.muxed,
        worker.failed,
        f"{worker.rate:.0f}",
        tuple((single_line(name), redact(reason)) for name, reason in worker.out.items()),
    )
