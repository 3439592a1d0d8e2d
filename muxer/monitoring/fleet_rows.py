"""What the status page tells of a fleet: its lanes, and a row for each worker. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from muxer.fleet.view import FleetView, WorkerView, is_silent
from muxer.monitoring.words import careful, plain

# More workers than that are counted: the page stays one that can be read.
SHOWN = 100


@dataclass(frozen=True)
class Worker:
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
class Fleet:
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
    workers: tuple[Worker, ...]
    more: int


def fleet(view: FleetView) -> Fleet:
    """Given how the fleet stands, return what the page tells of it."""
    workers = sorted((worker(one, view.at) for one in view.workers), key=lambda one: (not one.is_silent, one.name))
    return Fleet(
        connected=view.connected,
        living=len(view.living),
        threads=view.threads,
        rate=f"{view.rate:.0f}",
        queued=view.queued,
        oldest=view.oldest,
        dead=view.dead if view.connected else None,
        lanes=tuple((plain(name), count if view.connected else None) for name, count in view.lanes.items()),
        workers=tuple(workers[:SHOWN]),
        more=max(0, len(workers) - SHOWN),
    )


def worker(one: WorkerView, now: float) -> Worker:
    """Given a worker and the time, return its row."""
    out = tuple((plain(name), careful(reason)) for name, reason in one.out.items())
    numbers = (len(one.running), one.threads, one.muxed, one.failed)
    return Worker(plain(one.name), plain(one.version), is_silent(one, now), one.seen, *numbers, f"{one.rate:.0f}", out)
