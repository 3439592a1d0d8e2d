"""The state of a fleet as its poller knows it: workers, queues, tasks. Pure. Times are epoch seconds of the poller."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from muxer.status.activity import RunningTarget
from muxer.system.json_codec import MALFORMED_ERRORS, from_json

# The name of the broker as a service.
BROKER = "RabbitMQ"

# Workers send a heartbeat every five seconds. Without one they are silent, and later no longer shown.
SILENT_SECONDS = 20.0
FORGOTTEN_SECONDS = 300.0

# The name under which a worker with an nearly full disk reports that as unavailable.
DISK_SERVICE = "temp_dir"


@dataclass(frozen=True)
class WorkerStatus:
    """A worker as `seen`; `rate` is its targets per hour, `out` are services unavailable to it, with reasons."""

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
        """Host and slot, such as ``host/worker-0``; they do not change with the process."""
        return self.name.removesuffix(f"/{self.pid}")


@dataclass(frozen=True)
class FleetStatus:
    """The fleet at the time `at`: tasks by queue (`lanes`), dead letters, since when the oldest target waits."""

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
        return tuple(worker for worker in self.workers if not is_silent(worker, self.at))

    @property
    def running_jobs(self) -> tuple[tuple[str, RunningTarget], ...]:
        """The jobs of the workers that are not silent, each after the name of its worker."""
        return tuple((worker.name, job) for worker in self.live_workers for job in worker.running)

    @property
    def hourly_rate(self) -> float:
        """Targets per hour of the workers that are not silent."""
        return sum(worker.rate for worker in self.live_workers)

    @property
    def thread_count(self) -> int:
        """Threads of the workers that are not silent."""
        return sum(worker.threads for worker in self.live_workers)

    @property
    def oldest_age(self) -> float:
        """Seconds that the oldest queued target has waited; 0 when there is none."""
        return 0.0 if self.oldest is None else max(0.0, self.at - self.oldest)


def is_silent(worker: WorkerStatus, now: float) -> bool:
    """Whether heartbeats of a worker are missing: its process, its host or the network has failed."""
    return now - worker.seen > SILENT_SECONDS


def is_forgotten(worker: WorkerStatus, now: float) -> bool:
    """Whether heartbeats of a worker are missing for so long that it is no longer shown."""
    return now - worker.seen > FORGOTTEN_SECONDS


def fleet_problems(view: FleetStatus, out: Collection[str] = ()) -> tuple[str, ...]:
    """Return what prevents the fleet from working, except services in `out`. It needs no workers without tasks."""
    if not view.connected:
        return () if BROKER in out else (f"{BROKER} is not connected: no tasks are distributed to the workers",)
    if not view.live_workers and view.queued:
        waiting = "1 muxed file waits" if view.queued == 1 else f"{view.queued} muxed files wait"
        return (f"no worker is running, and {waiting} for one",)
    if view.queued and view.live_workers and all(DISK_SERVICE in worker.out for worker in view.live_workers):
        return ("no worker accepts tasks: the disk of each is nearly full",)
    return ()


def mask_fleet(view: FleetStatus, mask: Callable[[str], str]) -> FleetStatus:
    """Return the state without secrets: workers report error texts of services."""
    workers = (replace(one, out={mask(name): mask(reason) for name, reason in one.out.items()}) for one in view.workers)
    return replace(view, workers=tuple(workers))


def fleet_to_dict(view: FleetStatus) -> dict[str, Any]:
    """Return the state in its JSON form."""
    return asdict(view)


def fleet_from_dict(plain: object) -> FleetStatus | None:
    """Return the state from its JSON form; None when it is malformed. Malformed workers and jobs are left out."""
    try:
        return from_json(FleetStatus, plain)
    except MALFORMED_ERRORS:
        return None


def worker_from_dict(plain: object) -> WorkerStatus | None:
    """Return the state of a worker from its JSON form; None when it is malformed."""
    try:
        return from_json(WorkerStatus, plain)
    except MALFORMED_ERRORS:
        return None
