"""Prints a fleet for `status`: at the poller all of it, on a machine of workers only these."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from muxer.commands._shared.common import show_table
from muxer.commands._shared.running_instance import RUNS, RunningInstance
from muxer.log.setup import escape_control
from muxer.status.activity import RunningTarget
from muxer.status.fleet_status import BROKER, FleetStatus, WorkerStatus, is_silent
from muxer.status.formatting import format_ago, format_span
from muxer.status.progress import format_progress, measure_progress
from muxer.status.state_file import running_jobs

RUNNING_HEADER = ("recording", "agent", "step", "for", "progress")


def print_fleet(view: FleetStatus) -> None:
    """Print the state of a fleet."""
    write = sys.stdout.write
    connection = f"{BROKER} connected" if view.connected else f"{BROKER} not connected"
    workers = f"{len(view.live_workers)} worker{'s' * (len(view.live_workers) != 1)} with {view.thread_count} threads"
    write(f"fleet: {connection}, {workers}, {view.hourly_rate:.0f} muxed files per hour\n")
    oldest = f" (the oldest for {format_span(view.oldest_age)})" if view.oldest is not None else ""
    write(f"tasks: {view.queued} queued{oldest}, {view.running} running\n")
    queues = ", ".join(f"{escape_control(name)} {number}" for name, number in view.lanes.items())
    write(f"queues: {queues}; dead letters: {view.dead}\n" if view.connected else "queues and dead letters: unknown\n")
    if view.workers:
        head = ("worker", "host", "running", "done", "failed", "per hour", "state")
        show_table(head, (_worker_row(worker, view.at) for worker in view.workers), "workers")
    running = [(name, *running_row(job, view.at)) for name, job in view.running_jobs]
    if running:
        show_table(("worker", *RUNNING_HEADER), running, "running")


def _worker_row(worker: WorkerStatus, now: float) -> tuple[str, ...]:
    state = f"silent, seen {format_ago(worker.seen, now)}" if is_silent(worker, now) else "running"
    out = "".join(f"; {name} is unavailable: {reason}" for name, reason in worker.out.items())
    busy = f"{len(worker.running)} of {worker.threads}"
    name = worker.name.removeprefix(f"{worker.host}/")
    return name, worker.host, busy, str(worker.muxed), str(worker.failed), f"{worker.rate:.0f}", state + out


def print_workers(workers: Sequence[RunningInstance], threads: int, now: float) -> None:
    """Print the workers on this machine, with `threads` threads each."""
    rows = [_local_worker_row(worker, worker.state, threads, now) for worker in workers if worker.state is not None]
    show_table(
        ("worker", "version", "process", "started", "running", "done", "failed", "state"), rows, "workers on this machine"
    )
    alive = [(one.folder.name, one.state) for one in workers if one.state is not None and one.standing == RUNS]
    running = [(name, *running_row(job, now)) for name, state in alive for job in running_jobs(state)]
    if running:
        show_table(("worker", *RUNNING_HEADER), running, "running")


def _local_worker_row(worker: RunningInstance, state: dict[str, Any], threads: int, now: float) -> tuple[str, ...]:
    outcomes = state["totals"]["outcomes"]
    done, failed = (str(outcomes.get(name, 0)) for name in ("muxed", "failed"))
    busy = f"{len(state['running'])} of {threads}" if worker.standing == RUNS else "nothing"
    name, started = worker.folder.name, format_ago(state["started"], now)
    return name, state["version"], str(state["pid"]), started, busy, done, failed, worker.standing


def running_row(job: RunningTarget, now: float) -> tuple[str, ...]:
    """Return the row of a job in a table with :data:`RUNNING_HEADER`."""
    progress = format_progress(measure_progress(job.done, job.total, job.step_begun, now), job.step)
    return job.recording, job.agent, job.step, format_span(now - job.begun), progress
