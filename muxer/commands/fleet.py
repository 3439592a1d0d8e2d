"""What ``status`` tells of a fleet: all of it at the poller, and on a machine of workers only these."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from muxer.activity import Running
from muxer.commands.common import show_table
from muxer.commands.instance import RUNS, Instance
from muxer.fleet.view import BROKER, FleetView, WorkerView, is_silent
from muxer.monitoring.words import ago, span
from muxer.observe.logs import plain
from muxer.progress import progress, shown
from muxer.state import jobs

RUNNING_HEAD = ("recording", "agent", "step", "for", "progress")


def show_fleet(view: FleetView) -> None:
    """Given how the fleet stands, print it."""
    say = sys.stdout.write
    reached = f"{BROKER} reached" if view.connected else f"{BROKER} not reached"
    workers = f"{len(view.living)} worker{'s' * (len(view.living) != 1)} with {view.threads} threads"
    say(f"fleet: {reached}, {workers}, {view.rate:.0f} muxed files an hour\n")
    oldest = f", the oldest for {span(view.oldest_age)}" if view.oldest is not None else ""
    say(f"orders: {view.queued} not begun{oldest}, {view.running} running\n")
    lanes = ", ".join(f"{plain(name)} {number}" for name, number in view.lanes.items())
    say(f"lanes: {lanes}; dead letters: {view.dead}\n" if view.connected else "lanes and dead letters: unknown\n")
    if view.workers:
        head = ("worker", "host", "running", "done", "failed", "an hour", "state")
        show_table(head, (_worker(one, view.at) for one in view.workers), "workers")
    running = [(name, *running_row(job, view.at)) for name, job in view.jobs]
    if running:
        show_table(("worker", *RUNNING_HEAD), running, "running")


def _worker(one: WorkerView, now: float) -> tuple[str, ...]:
    state = f"silent, seen {ago(one.seen, now)}" if is_silent(one, now) else "up"
    out = "".join(f"; {name} is out: {why}" for name, why in one.out.items())
    busy = f"{len(one.running)} of {one.threads}"
    name = one.name.removeprefix(f"{one.host}/")
    return name, one.host, busy, str(one.muxed), str(one.failed), f"{one.rate:.0f}", state + out


def show_workers(workers: Sequence[Instance], threads: int, now: float) -> None:
    """Given workers on this machine, how many threads each has and the time, print how they stand."""
    rows = [_local(one, one.state, threads, now) for one in workers if one.state is not None]
    show_table(("worker", "version", "process", "started", "running", "done", "failed", "state"), rows, "workers here")
    alive = [(one.folder.name, one.state) for one in workers if one.state is not None and one.standing == RUNS]
    running = [(name, *running_row(job, now)) for name, found in alive for job in jobs(found)]
    if running:
        show_table(("worker", *RUNNING_HEAD), running, "running")


def _local(one: Instance, found: dict[str, Any], threads: int, now: float) -> tuple[str, ...]:
    outcomes = found["totals"]["outcomes"]
    done, failed = (str(outcomes.get(name, 0)) for name in ("muxed", "failed"))
    busy = f"{len(found['running'])} of {threads}" if one.standing == RUNS else "nothing"
    return one.folder.name, found["version"], str(found["pid"]), ago(found["started"], now), busy, done, failed, one.standing


def running_row(job: Running, now: float) -> tuple[str, ...]:
    """Given a running job and the time, return its row in a table with :data:`RUNNING_HEAD`."""
    far = shown(progress(job.done, job.total, job.step_begun, now), job.step)
    return job.recording, job.agent, job.step, span(now - job.begun), far
