"""Command `status`: show the state of the running instance. It reads files and never waits for the muxer."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muxer.commands._shared.common import (
    create_parser,
    exit_code_of,
    load_configuration,
    show_json,
    show_remedies,
    show_table,
)
from muxer.commands._shared.fleet_tables import RUNNING_HEADER, print_fleet, print_workers, running_row
from muxer.commands._shared.running_instance import (
    DIED,
    RUNS,
    RunningInstance,
    find_instance,
    find_local_workers,
    instance_problems,
    process_problems,
)
from muxer.config.schema import FILE_OUTPUT, Config
from muxer.journal import history
from muxer.journal.history import HOUR_SECONDS, JournalHistory
from muxer.journal.journal import DONE, QUEUED, RETRY, RUNNING, SET_ASIDE, WANTED
from muxer.log.outputs import describe_output
from muxer.log.setup import escape_control
from muxer.status.error_help import help_for, needs_correction
from muxer.status.fleet_status import BROKER, fleet_from_dict
from muxer.status.formatting import format_ago, format_datetime, format_span
from muxer.status.last_audit import LastAudit, read_last_audit
from muxer.status.state_file import running_jobs
from muxer.system import files
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK

WATCH_INTERVAL = 2.0
MAX_REASONS = 5
# What the counts of a poll and the states of the journal mean to an administrator.
_RESULT_LABELS = {
    "found": "call recordings found",
    "ours": "of them of this instance",
    "without_screen": "without a screen recording",
    "skipped": "skipped because RWS fails for them",
    "already_done": "muxed files exist already",
    "submitted": "muxed files queued",
    "waiting": "in progress, waiting or set aside",
}
_STATE_LABELS = {
    WANTED: "not started yet",
    QUEUED: "queued for a worker of the fleet",
    RUNNING: "in progress",
    DONE: "done",
    RETRY: "failed and retried automatically",
    SET_ASIDE: "failed and set aside until `retry`",
}
_CODE = re.compile(r"\bMUX-\d{3}\b")


def main(argv: Sequence[str]) -> int:
    """Run the command; return 0 when the instance works, else 1."""
    parser = create_parser("status", "Show the state of the running instance.")
    parser.add_argument("--watch", action="store_true", help="repeat every two seconds until Ctrl-C")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: _run_status(arguments))


def _run_status(arguments: argparse.Namespace) -> int:
    config = load_configuration(arguments, needs_secrets=False).config
    while True:
        view = gather_status(config)
        if arguments.watch and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        if arguments.json:
            show_json(status_facts(config, view))
        else:
            _print_status(config, view)
        if not arguments.watch:
            return EXIT_FAILED if view.problems else EXIT_OK
        sys.stdout.flush()
        time.sleep(WATCH_INTERVAL)


@dataclass(frozen=True)
class StatusView:
    """The instance, its journal and problems. `workers`: those here, without an instance. `codes`: code, state, count."""

    instance: RunningInstance
    workers: tuple[RunningInstance, ...]
    past: JournalHistory
    problems: tuple[str, ...]
    codes: list[tuple[str, str, int]]
    audit: LastAudit

    @property
    def has_workers_only(self) -> bool:
        return self.instance.state is None and bool(self.workers)

    @property
    def remedy_codes(self) -> set[str]:
        return {code for code, _, _ in self.codes[:MAX_REASONS]} | set(_CODE.findall(" ".join(self.problems)))


def gather_status(config: Config) -> StatusView:
    """Read the state of the instance, or of the workers on this machine."""
    instance = find_instance(config)
    workers = () if instance.standing == RUNS else find_local_workers(config)
    of_workers = [f"{worker.folder.name}: {problem}" for worker in workers for problem in process_problems(worker)]
    of_instance = [] if instance.state is None and workers else instance_problems(instance, config)
    past = history.read_history(instance.journal_path if files.exists(instance.journal_path) else None, time.time())
    codes, audit = history.count_by_code(instance.journal_path), read_last_audit(instance.folder)
    return StatusView(instance, workers, past, (*of_instance, *of_workers), codes, audit)


def status_facts(config: Config, view: StatusView) -> dict[str, Any]:
    """Return the state in its JSON form."""
    workers = [{"name": worker.folder.name, "standing": worker.standing, "state": worker.state} for worker in view.workers]
    return {
        "standing": view.instance.standing,
        "log": _log_text(config, view.instance),
        "trouble": list(view.problems),
        "state": view.instance.state,
        "workers": workers,
        "targets": view.past.counts,
        "last_hour": vars(_sum_hours(view.past, 1)),
        "last_day": vars(_sum_hours(view.past, history.SHOWN_HOURS)),
        "last_audit": vars(view.audit) if view.audit.has_ended else None,
        "failures_by_code": view.codes,
        "remedies": {code: help_for(code) for code in view.remedy_codes},
    }


def _print_status(config: Config, view: StatusView) -> None:
    write = sys.stdout.write
    state, now = view.instance.state, time.time()
    # The plans of a process that died are void.
    is_alive = view.instance.standing != DIED
    write(f"{config.instance_name}: {'only workers on this machine' if view.has_workers_only else view.instance.standing}")
    if state is not None:
        write(f", version {state['version']}, process {state['pid']}, started {format_ago(state['started'], now)}")
    write("\n")
    if not view.has_workers_only:
        write(f"{escape_control(_log_text(config, view.instance))}\n")
    for problem in view.problems:
        write(f"  ! {escape_control(problem)}\n")
    if state is not None:
        lines = [*_last_poll_lines(state, now), *(_next_poll_lines(state, now) if is_alive else [])]
        write("".join(f"{line}\n" for line in (*lines, *_oldest_lines(state, now))))
        if is_alive:
            _print_work(config, state, now)
    if not view.has_workers_only:
        write("".join(f"{line}\n" for line in _count_lines(view.past)))
        write("".join(f"{line}\n" for line in _audit_lines(view.audit, now)))
    if view.workers:
        print_workers(view.workers, config.advanced.worker_threads, now)
    if view.codes:
        rows = [(str(count), code, _failure_state(code, state)) for code, state, count in view.codes[:MAX_REASONS]]
        show_table(("files", "code", "state"), rows, "failures; `failed` lists them, `retry` requeues them")
    show_remedies(view.remedy_codes)


def _failure_state(code: str, state: str) -> str:
    """Return what happens to failures with a code and a state of the journal."""
    if state == RETRY and needs_correction(code):
        return "retried; waits for a correction"
    return _STATE_LABELS.get(state, state).removeprefix("failed and ")


def _log_text(config: Config, instance: RunningInstance) -> str:
    """Return where the log is. Without a folder in the configuration, only a running instance knows that."""
    if instance.state is not None and instance.state.get("log"):
        return str(instance.state["log"])
    if config.logfile.output == FILE_OUTPUT and config.logfile.logfile_path is None:
        return "log file: in the working directory of the muxer"
    return describe_output(config.logfile, config.instance_name)


def _print_work(config: Config, state: dict[str, Any], now: float) -> None:
    fleet = fleet_from_dict(state.get("fleet"))
    if fleet is not None:
        print_fleet(fleet)
        return
    threads, running = config.advanced.worker_threads, running_jobs(state)
    sys.stdout.write(f"queue: {state['queued']}, running: {len(running)} of {threads} workers\n")
    if running:
        show_table(RUNNING_HEADER, [running_row(job, now) for job in running], "running")


def _last_poll_lines(state: dict[str, Any], now: float) -> list[str]:
    polls = state["polls"]
    if polls["last_success"] is None:
        failed = f"no poll has succeeded yet, {polls['failed']} failed: run `check`, which shows the cause"
        last = failed if polls["failed"] else "no poll has ended yet"
    else:
        result = _result_text(polls["result"])
        ended, took = format_ago(polls["last_success"], now), format_span(polls["seconds"])
        reach = f", read the last {format_span(polls['reach'])} of the window" if polls["reach"] else ""
        last = f"last poll: {ended}, took {took}{reach}: {result}"
    lines = [last]
    if polls["last_success"] is not None and not any(polls["result"].values()):
        lines.append("if there are call recordings in the window, run `check`, which shows the cause")
    return lines


def _next_poll_lines(state: dict[str, Any], now: float) -> list[str]:
    polls, lines = state["polls"], list[str]()
    if polls.get("next_due"):
        due = polls["next_due"]
        trial = ", it tries again what is unavailable" if state["out"].keys() - {BROKER} else ""
        lines.append(f"next poll: {format_ago(due, now) if due > now + 1 else 'now'}{trial}")
    elif polls["begun"] is not None:
        lines.append(f"a poll is running, started {format_ago(polls['begun'], now)}")
    if polls["whole_due"] is not None:
        read, due = polls["whole_success"], polls["whole_due"]
        done = f"read {format_ago(read, now)}" if read is not None else "not read yet"
        lines.append(f"whole window: {done}, due {format_ago(due, now) if due > now + 1 else 'at the next poll'}")
    return lines


def _audit_lines(audit: LastAudit, now: float) -> list[str]:
    """Return the line about the last regular audit, if one has ended."""
    if not audit.has_ended:
        return []
    result = f"{audit.finding_count} findings, the log names the command that shows them" if audit.findings else "complete"
    return [f"last audit: {format_ago(audit.at, now)}, {audit.calls:,} calls, {audit.files:,} muxed files: {result}"]


def _oldest_lines(state: dict[str, Any], now: float) -> list[str]:
    start = state["polls"]["oldest_open"]
    if start is None:
        return []
    age = f"started {format_datetime(start)}, {format_ago(start, now)}"
    return [f"oldest call without its muxed file, as the last poll found it: {age}"]


def _result_text(result: dict[str, int]) -> str:
    """Return the counts of a poll in words, those of this instance only when it has a share of the recordings."""
    shown = {name: count for name, count in result.items() if count and (name != "ours" or count != result.get("found"))}
    return ", ".join(f"{count} {_RESULT_LABELS.get(name, name)}" for name, count in shown.items()) or "found nothing"


def _count_lines(past: JournalHistory) -> list[str]:
    if past.problem:
        return [past.problem]
    lines = []
    for label, hours in (("last hour", 1), ("last 24 hours", history.SHOWN_HOURS)):
        total = _sum_hours(past, hours)
        amount = f"{total.media_seconds / HOUR_SECONDS:.1f} h of media, {total.bytes / 1e6:.0f} MB"
        lines.append(f"{label}: {total.muxed} muxed, {total.failed} failed and not muxed since; {amount} written")
    counts = ", ".join(f"{past.counts[state]} {label}" for state, label in _STATE_LABELS.items() if past.counts.get(state))
    return [*lines, f"muxed files in the journal: {counts or 'none'}"]


def _sum_hours(past: JournalHistory, hours: int) -> history.HourCounts:
    """Return the sum of the current hour and the number of `hours` before it."""
    summed = past.hours[-hours - 1 :]
    return history.HourCounts(
        summed[0].start if summed else 0,
        sum(hour.muxed for hour in summed),
        sum(hour.failed for hour in summed),
        sum(hour.media_seconds for hour in summed),
        sum(hour.bytes for hour in summed),
    )
