"""How the fleet stands, as its poller knows it: workers, lanes, what waits. Pure; times are epoch seconds of the poller."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from muxer.status.activity import RunningTarget
from muxer.system.json_codec import MALFORMED_ERRORS, from_json

# The name of the broker among the services.
BROKER = "RabbitMQ"

# A worker tells of itself every five seconds. One that has not for so long is silent; after so long, it is forgotten.
SILENT_SECONDS = 20.0
FORGOTTEN_SECONDS = 300.0

# What a worker says is out when its disk is nearly full.
DISK_SERVICE = "temp_dir"


@dataclass(frozen=True)
class WorkerStatus:
    """A worker as it told of itself when it was ``seen`` last. ``rate`` = targets finished an hour, over the last ten
    minutes; ``out`` = the services that are out for it, and why."""

    name: str
    host: str
    pid: int
    version: str
    started: float
    seen: float
    threads: int
    running: tuple[RunningTarget, ...]
    muxed: int
    failed: int
    rate: float
    out: dict[str, str]

    @property
    def host_slot(self) -> str:
        """Its host and its place there, which outlive its process: ``host/worker-0``."""
        return self.name.removesuffix(f"/{self.pid}")


@dataclass(frozen=True)
class FleetStatus:
    """The fleet ``at`` a moment: whether the broker is reached, the messages that wait in each lane, dead letters, targets
    that are queued (not begun) and that run, and when the oldest one was enqueued that is not yet begun."""

    at: float
    connected: bool
    lanes: dict[str, int]
    dead: int
    queued: int
    running: int
    oldest: float | None
    workers: tuple[WorkerStatus, ...]

    @property
    def live_workers(self) -> tuple[WorkerStatus, ...]:
        """The workers that are not silent."""
        return tuple(one for one in self.workers if not is_silent(one, self.at))

    @property
    def running_jobs(self) -> tuple[tuple[str, RunningTarget], ...]:
        """What the living workers work on, each with the name of its worker."""
        return tuple((worker.name, one) for worker in self.live_workers for one in worker.running)

    @property
    def hourly_rate(self) -> float:
        """Targets that all living workers finish an hour."""
        return sum(one.rate for one in self.live_workers)

    @property
    def thread_count(self) -> int:
        """Targets that all living workers may work on at the same time."""
        return sum(one.threads for one in self.live_workers)

    @property
    def oldest_age(self) -> float:
        """For how many seconds the oldest target has waited; 0 when none does."""
        return 0.0 if self.oldest is None else max(0.0, self.at - self.oldest)


def is_silent(worker: WorkerStatus, now: float) -> bool:
    """Whether a worker has said nothing for long: it has died, or its host or the network has."""
    return now - worker.seen > SILENT_SECONDS


def is_forgotten(worker: WorkerStatus, now: float) -> bool:
    """Whether a worker has said nothing for so long that it is not shown any more."""
    return now - worker.seen > FORGOTTEN_SECONDS


def fleet_problems(view: FleetStatus, out: Collection[str] = ()) -> tuple[str, ...]:
    """Given how the fleet stands and the services that are known to be out, return what else keeps it from its work; nothing
    when it is at it. A fleet without workers that has nothing to do is well: sites let it shrink to none."""
    if not view.connected:
        return () if BROKER in out else (f"{BROKER} is not reached: nothing is handed to the workers",)
    if not view.live_workers and view.queued:
        waiting = "1 muxed file waits" if view.queued == 1 else f"{view.queued} muxed files wait"
        return (f"no worker is there, and {waiting} for one",)
    if view.queued and view.live_workers and all(DISK_SERVICE in one.out for one in view.live_workers):
        return ("no worker takes an order: the disk of each is nearly full",)
    return ()


def mask_fleet(view: FleetStatus, mask: Callable[[str], str]) -> FleetStatus:
    """Given how the fleet stands and what removes secrets from a text, return it without them: workers repeat what services
    have said to them."""
    workers = (replace(one, out={mask(name): mask(why) for name, why in one.out.items()}) for one in view.workers)
    return replace(view, workers=tuple(workers))


def fleet_to_dict(view: FleetStatus) -> dict[str, Any]:
    """Given how the fleet stands, return it as JSON holds it."""
    return asdict(view)


def fleet_from_dict(plain: object) -> FleetStatus | None:
    """Return the fleet status that a state file holds, None when it is malformed. Malformed workers and running targets are
    left out."""
    try:
        return from_json(FleetStatus, plain)
    except MALFORMED_ERRORS:
        return None


def worker_from_dict(plain: object) -> WorkerStatus | None:
    """Return the status of a worker, None when it is malformed."""
    try:
        return from_json(WorkerStatus, plain)
    except MALFORMED_ERRORS:
        return None
