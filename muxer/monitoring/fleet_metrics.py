"""The metrics of a fleet, which its poller tells: a worker has no port of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric

from muxer.monitoring.metric_helpers import gauge_metric, labelled_gauge, single_label
from muxer.status.fleet_status import FleetStatus, WorkerStatus


def fleet_metric_families(view: FleetStatus) -> Iterator[Metric]:
    """Given how the fleet stands, return its metrics. What only the broker knows is left out while it is not reached."""
    yield gauge_metric("muxer_fleet_up", "Whether the broker is reached.", view.connected)
    yield gauge_metric("muxer_fleet_workers", "Workers that have told of themselves lately.", len(view.live_workers))
    if view.connected:
        help_text = "Orders that wait for a worker, by queue."
        yield labelled_gauge("muxer_fleet_queue_messages", help_text, ["queue"], single_label(view.lanes))
        yield gauge_metric(
            "muxer_fleet_dead_letters", "Orders that no worker could read or finish, kept for a week.", view.dead
        )
    yield gauge_metric(
        "muxer_fleet_queued", "Muxed files that this poller has ordered and no worker has begun.", view.queued
    )
    yield gauge_metric(
        "muxer_fleet_running", "Muxed files that this poller has ordered and a worker works on.", view.running
    )
    help_text = "How long the oldest order waits that no worker has begun; 0 = there is none."
    yield gauge_metric("muxer_fleet_oldest_message_age_seconds", help_text, view.oldest_age)
    yield from _worker_metrics(view)


def _worker_metrics(view: FleetStatus) -> Iterator[Metric]:
    """Yield the metrics by worker. One that is silent has only the time since then: the rest is not known."""
    living = _workers_by_slot(view.live_workers)
    label = ["worker"]
    rates = {name: one.rate for name, one in living.items()}
    help_text = "Muxed files that a worker finishes an hour, over the last ten minutes."
    yield labelled_gauge("muxer_fleet_worker_targets_per_hour", help_text, label, single_label(rates))
    threads = {name: one.threads for name, one in living.items()}
    yield labelled_gauge(
        "muxer_fleet_worker_threads", "Muxed files that a worker does at a time.", label, single_label(threads)
    )
    running = {name: len(one.running) for name, one in living.items()}
    yield labelled_gauge("muxer_fleet_worker_running", "Muxed files that a worker works on.", label, single_label(running))
    seen = {name: max(0.0, view.at - one.seen) for name, one in _workers_by_slot(view.workers).items()}
    yield labelled_gauge(
        "muxer_fleet_worker_seen_seconds", "Time since a worker has told of itself.", label, single_label(seen)
    )


def _workers_by_slot(workers: Iterable[WorkerStatus]) -> dict[str, WorkerStatus]:
    """Return workers by host and place, so that a restart begins no new series; of one that died and the next in its place,
    the one that was seen last."""
    return {one.host_slot: one for one in sorted(workers, key=lambda one: one.seen)}
