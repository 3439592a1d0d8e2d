"""Generated views of a fleet for tests: workers and queues."""

from __future__ import annotations

from typing import Any

from muxer.status.fleet_status import FleetStatus, WorkerStatus
from tests.support.status_views import NOW

__all__ = ["NOW", "fleet_view", "worker_view"]


def worker_view(number: int = 0, **changes: Any) -> WorkerStatus:
    """Return a healthy worker: its last heartbeat was two seconds ago, and it finishes 120 targets an hour."""
    values = {"name": f"host-{number}/worker-0/{100 + number}", "host": f"host-{number}", "pid": 100 + number}
    values |= {"version": "0.1.0", "started": NOW - 3600, "seen": NOW - 2, "threads": 4, "running": ()}
    values |= {"muxed": 90, "failed": 2, "rate": 120.0, "out": {}}
    return WorkerStatus(**{**values, **changes})


def fleet_view(*workers: WorkerStatus, **changes: Any) -> FleetStatus:
    """Return a fleet of these workers with empty queues."""
    lanes = {"recording-muxer": 0, "recording-muxer.today": 0, "recording-muxer.backlog": 0}
    values = {"at": NOW, "connected": True, "lanes": lanes, "dead": 0, "queued": 0, "running": 0, "oldest": None}
    values |= {"running": sum(len(worker.running) for worker in workers), "workers": workers}
    return FleetStatus(**{**values, **changes})
