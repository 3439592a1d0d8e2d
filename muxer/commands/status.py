"""``status``: how the running instance stands, read from what it tells; it is neither asked nor held up."""

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
    RUNS,
    RunningInstance,
    find_instance,
    find_local_workers,
    instance_problems,
    process_problems,
)
from muxer.config.schema import Config
from muxer.journal import history
from muxer.journal.history import HOUR_SECONDS, JournalHistory
from muxer.log.setup import escape_control
from muxer.status.error_help import help_for
from muxer.status.fleet_status import fleet_from_dict
from muxer.status.formatting import format_ago, format_datetime, format_span
from muxer.status.state_file import running_jobs
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK

WATCH_INTERVAL = 2.0
MAX_REASONS = 5
_CODE = re.compile(r"\bMUX-\d{3}\b")


def main(argv: Sequence[str]) -> int:
    """Given the arguments, show how things stand; return 0 when the instance is at its work, else 1."""
    made = create_parser("status", "How the running instance stands.")
    made.add_argument("--watch", action="store_true", help="look again every two seconds, until Ctrl-C")
    arguments = made.parse_args(argv)
    return exit_code_of(lambda: _run_status(arguments))


def _run_status(arguments: argparse.Namespace) -> int:
    config = load_configuration(arguments).config
    while True:
        seen = _gather_status(config)
        if arguments.watch and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        if arguments.json:
            show_json(_status_facts(seen))
        else:
            _print_status(config, seen)
        if not arguments.watch:
            return EXIT_FAILED if seen.wrong else EXIT_OK
        sys.stdout.flush()
        time.sleep(WATCH_INTERVAL)


@dataclass(frozen=True)
class _StatusView:
    """The instance; the workers of its fleet that are on this machine, where it does not run itself; the journal; what is
    wrong; how many targets failed with which code."""

    instance: RunningInstance
    workers: tuple[RunningInstance, ...]
    past: JournalHistory
    wrong: tuple[str, ...]
    codes: list[tuple[str, str, int]]

    @property
    def has_workers_only(self) -> bool:
        """Whether this is a machine of workers, whose poller is elsewhere."""
        return self.instance.state is None and bool(self.workers)

    @property
    def remedy_codes(self) -> set[str]:
        """The codes that are named by what is wrong and by the failures."""
        return {code for code, _, _ in self.codes[:MAX_REASONS]} | set(_CODE.findall(" ".join(self.wrong)))


def _gather_status(config: Config) -> _StatusView:
    instance = find_instance(config)
    workers = () if instance.standing == RUNS else find_local_workers(config)
    of_workers = [f"{one.folder.name}: {reason}" for one in workers for reason in process_problems(one)]
    of_instance = [] if instance.state is None and workers else instance_problems(instance, config)
    past = history.read_history(instance.journal_path if instance.journal_path.exists() else None, time.time())
    return _StatusView(instance, workers, past, (*of_instance, *of_workers), history.count_by_code(instance.journal_path))


def _status_facts(seen: _StatusView) -> dict[str, Any]:
    workers = [{"name": one.folder.name, "standing": one.standing, "state": one.state} for one in seen.workers]
    return {
        "standing": seen.instance.standing,
        "trouble": list(seen.wrong),
        "state": seen.instance.state,
        "workers": workers,
        "targets": seen.past.counts,
        "last_hour": vars(_sum_hours(seen.past, 1)),
        "last_day": vars(_sum_hours(seen.past, history.SHOWN_HOURS)),
        "failures_by_code": seen.codes,
        "remedies": {code: help_for(code) for code in seen.remedy_codes},
    }


def _print_status(config: Config, seen: _StatusView) -> None:
    say = sys.stdout.write
    found, now = seen.instance.state, time.time()
    say(f"{config.instance_name}: {'only workers are here' if seen.has_workers_only else seen.instance.standing}")
    if found is not None:
        say(f", version {found['version']}, process {found['pid']}, started {format_ago(found['started'], now)}")
    say("\n")
    for one in seen.wrong:
        say(f"  ! {escape_control(one)}\n")
    if found is not None:
        say("".join(f"{line}\n" for line in _poll_lines(found, now)))
        _print_work(config, found, now)
    if not seen.has_workers_only:
        say("".join(f"{line}\n" for line in _count_lines(seen.past)))
    if seen.workers:
        print_workers(seen.workers, config.advanced.worker_threads, now)
    if seen.codes:
        rows = [(str(count), code, state) for code, state, count in seen.codes[:MAX_REASONS]]
        show_table(("files", "code", "state"), rows, "failures; `failed` lists them, `retry` puts them back")
    show_remedies(seen.remedy_codes)


def _print_work(config: Config, found: dict[str, Any], now: float) -> None:
    """Print what is at work and waits: in the fleet, or in the instance itself."""
    fleet = fleet_from_dict(found.get("fleet"))
    if fleet is not None:
        print_fleet(fleet)
        return
    threads, running = config.advanced.worker_threads, running_jobs(found)
    sys.stdout.write(f"queue: {found['queued']}, running: {len(running)} of {threads} workers\n")
    if running:
        show_table(RUNNING_HEADER, [running_row(one, now) for one in running], "running")


def _poll_lines(found: dict[str, Any], now: float) -> list[str]:
    polls = found["polls"]
    if polls["last_success"] is None:
        last = "no poll has ended yet"
    else:
        met = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in polls["result"].items() if count)
        last = f"last poll: {format_ago(polls['last_success'], now)}, took {format_span(polls['seconds'])}: {met or 'found nothing'}"
    lines = [last]
    if polls.get("next_due"):
        due = polls["next_due"]
        lines.append(f"next poll: {format_ago(due, now) if due > now + 1 else 'now'}")
    if polls["oldest_open"] is not None:
        begun = polls["oldest_open"]
        lines.append(f"oldest call without its muxed file: began {format_datetime(begun)}, {format_ago(begun, now)}")
    return lines


def _count_lines(past: JournalHistory) -> list[str]:
    if past.problem:
        return [past.problem]
    lines = []
    for words, hours in (("last hour", 1), ("last 24 hours", history.SHOWN_HOURS)):
        one = _sum_hours(past, hours)
        amount = f"{one.media_seconds / HOUR_SECONDS:.1f} h of media, {one.bytes / 1e6:.0f} MB"
        lines.append(f"{words}: {one.muxed} muxed, {one.failed} failed, {amount}")
    kept = ", ".join(f"{count} {state}" for state, count in sorted(past.counts.items()))
    return [*lines, f"journal: {kept or 'empty'}"]


def _sum_hours(past: JournalHistory, hours: int) -> history.HourCounts:
    """Return what ended in the running hour and those before it, so many in all and the running one."""
    taken = past.hours[-hours - 1 :]
    return history.HourCounts(
        taken[0].start if taken else 0,
        sum(one.muxed for one in taken),
        sum(one.failed for one in taken),
        sum(one.media_seconds for one in taken),
        sum(one.bytes for one in taken),
    )
