"""What ``status`` tells of a fleet: all of it at the poller, and on a machine of workers only these."""

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
    """Given how the fleet stands, print it."""
    say = sys.stdout.write
    reached = f"{BROKER} reached" if view.connected else f"{BROKER} not reached"
    workers = f"{len(view.live_workers)} worker{'s' * (len(view.live_workers) != 1)} with {view.thread_count} threads"
    say(f"fleet: {reached}, {workers}, {view.hourly_rate:.0f} muxed files an hour\n")
    oldest = f", the oldest for {format_span(view.oldest_age)}" if view.oldest is not None else ""
    say(f"orders: {view.queued} not begun{oldest}, {view.running} running\n")
    lanes = ", ".join(f"{escape_control(name)} {number}" for name, number in view.lanes.items())
    say(f"lanes: {lanes}; dead letters: {view.dead}\n" if view.connected else "lanes and dead letters: unknown\n")
    if view.workers:
        head = ("worker", "host", "running", "done", "failed", "an hour", "state")
        show_table(head, (_worker_row(one, view.at) for one in view.workers), "workers")
    running = [(name, *running_row(job, view.at)) for name, job in view.running_jobs]
    if running:
        show_table(("worker", *RUNNING_HEADER), running, "running")


def _worker_row(one: WorkerStatus, now: float) -> tuple[str, ...]:
    state = f"silent, seen {format_ago(one.seen, now)}" if is_silent(one, now) else "up"
    out = "".join(f"; {name} is out: {why}" for name, why in one.out.items())
    busy = f"{len(one.running)} of {one.threads}"
    name = one.name.removeprefix(f"{one.host}/")
    return name, one.host, busy, str(one.muxed), str(one.failed), f"{one.rate:.0f}", state + out


def print_workers(workers: Sequence[RunningInstance], threads: int, now: float) -> None:
    """Given workers on this machine, how many threads each has and the time, print how they stand."""
    rows = [_local_worker_row(one, one.state, threads, now) for one in workers if one.state is not None]
    show_table(("worker", "version", "process", "started", "running", "done", "failed", "state"), rows, "workers here")
    alive = [(one.folder.name, one.state) for one in workers if one.state is not None and one.standing == RUNS]
    running = [(name, *running_row(job, now)) for name, found in alive for job in running_jobs(found)]
    if running:
        show_table(("worker", *RUNNING_HEADER), running, "running")


def _local_worker_row(one: RunningInstance, found: dict[str, Any], threads: int, now: float) -> tuple[str, ...]:
    outcomes = found["totals"]["outcomes"]
    done, failed = (str(outcomes.get(name, 0)) for name in ("muxed", "failed"))
    busy = f"{len(found['running'])} of {threads}" if one.standing == RUNS else "nothing"
    return (
        one.folder.name,
        found["version"],
        str(found["pid"]),
        format_ago(found["started"], now),
        busy,
        done,
        failed,
        one.standing,
    )


def running_row(job: RunningTarget, now: float) -> tuple[str, ...]:
    """Given a running job and the time, return its row in a table with :data:`RUNNING_HEAD`."""
    far = format_progress(measure_progress(job.done, job.total, job.step_begun, now), job.step)
    return job.recording, job.agent, job.step, format_span(now - job.begun), far
