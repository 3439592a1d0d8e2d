"""The metrics of a fleet. The poller exposes them: a worker has no monitoring port. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric

from muxer.monitoring.metric_helpers import gauge_metric, labelled_gauge, single_label
from muxer.status.fleet_status import FleetStatus, WorkerStatus


def fleet_metric_families(view: FleetStatus) -> Iterator[Metric]:
    """Yield the metrics of a fleet. Those that only the broker knows are left out while it is not connected."""
    yield gauge_metric("muxer_fleet_up", "Whether the broker is connected.", view.connected)
    yield gauge_metric("muxer_fleet_workers", "Workers that have sent a heartbeat recently.", len(view.live_workers))
    if view.connected:
        help_text = "Tasks that wait for a worker, by queue."
        yield labelled_gauge("muxer_fleet_queue_messages", help_text, ["queue"], single_label(view.lanes))
        yield gauge_metric(
            "muxer_fleet_dead_letters", "Tasks that no worker could read or finish, kept for a week.", view.dead
        )
    yield gauge_metric("muxer_fleet_queued", "Tasks of this poller that no worker has started.", view.queued)
    yield gauge_metric("muxer_fleet_running", "Tasks of this poller that a worker is processing.", view.running)
    help_text = "Age of the oldest task that no worker has started; 0 = there is none."
    yield gauge_metric("muxer_fleet_oldest_message_age_seconds", help_text, view.oldest_age)
    yield from _worker_metrics(view)


def _worker_metrics(view: FleetStatus) -> Iterator[Metric]:
    """Yield the metrics by worker. A silent worker has only the time since its last heartbeat."""
    living = _workers_by_slot(view.live_workers)
    label = ["worker"]
    rates = {name: worker.rate for name, worker in living.items()}
    help_text = "Muxed files that a worker finishes per hour, over the last ten minutes."
    yield labelled_gauge("muxer_fleet_worker_targets_per_hour", help_text, label, single_label(rates))
    threads = {name: worker.threads for name, worker in living.items()}
    yield labelled_gauge(
        "muxer_fleet_worker_threads", "Muxed files that a worker can process at a time.", label, single_label(threads)
    )
    running = {name: len(worker.running) for name, worker in living.items()}
    yield labelled_gauge(
        "muxer_fleet_worker_running", "Muxed files that a worker is processing.", label, single_label(running)
    )
    seen = {name: max(0.0, view.at - worker.seen) for name, worker in _workers_by_slot(view.workers).items()}
    yield labelled_gauge(
        "muxer_fleet_worker_seen_seconds", "Time since the last heartbeat of a worker.", label, single_label(seen)
    )


def _workers_by_slot(workers: Iterable[WorkerStatus]) -> dict[str, WorkerStatus]:
    """Return workers by host and slot, so that a restart starts no new series; of several in one slot, the one seen last."""
    return {worker.host_slot: worker for worker in sorted(workers, key=lambda worker: worker.seen)}
