"""``status``: how the running instance stands, read from what it tells; it is neither asked nor held up."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muxer.commands.common import guarded, loaded, parser, show_json, show_remedies, show_table
from muxer.commands.fleet import RUNNING_HEAD, running_row, show_fleet, show_workers
from muxer.commands.instance import RUNS, Instance, look, look_at_workers, trouble, trouble_of_process
from muxer.config.schema import Config
from muxer.exits import EXIT_FAILED, EXIT_OK
from muxer.fleet.view import from_plain
from muxer.monitoring import history
from muxer.monitoring.history import HOUR, History
from muxer.monitoring.words import ago, moment, span
from muxer.observe.logs import plain
from muxer.remedies import remedy
from muxer.state import jobs

WATCH_SECONDS = 2.0
REASONS = 5
_CODE = re.compile(r"\bMUX-\d{3}\b")


def main(argv: Sequence[str]) -> int:
    """Given the arguments, show how things stand; return 0 when the instance is at its work, else 1."""
    made = parser("status", "How the running instance stands.")
    made.add_argument("--watch", action="store_true", help="look again every two seconds, until Ctrl-C")
    arguments = made.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    config = loaded(arguments).config
    while True:
        seen = _look(config)
        if arguments.watch and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        if arguments.json:
            show_json(_facts(seen))
        else:
            _show(config, seen)
        if not arguments.watch:
            return EXIT_FAILED if seen.wrong else EXIT_OK
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)


@dataclass(frozen=True)
class _Seen:
    """The instance; the workers of its fleet that are on this machine, where it does not run itself; the journal; what is
    wrong; how many targets failed with which code."""

    instance: Instance
    workers: tuple[Instance, ...]
    past: History
    wrong: tuple[str, ...]
    codes: list[tuple[str, str, int]]

    @property
    def has_workers_only(self) -> bool:
        """Whether this is a machine of workers, whose poller is elsewhere."""
        return self.instance.state is None and bool(self.workers)

    @property
    def remedies(self) -> set[str]:
        """The codes that are named by what is wrong and by the failures."""
        return {code for code, _, _ in self.codes[:REASONS]} | set(_CODE.findall(" ".join(self.wrong)))


def _look(config: Config) -> _Seen:
    instance = look(config)
    workers = () if instance.standing == RUNS else look_at_workers(config)
    of_workers = [f"{one.folder.name}: {reason}" for one in workers for reason in trouble_of_process(one)]
    of_instance = [] if instance.state is None and workers else trouble(instance, config)
    past = history.read(instance.journal if instance.journal.exists() else None, time.time())
    return _Seen(instance, workers, past, (*of_instance, *of_workers), history.by_code(instance.journal))


def _facts(seen: _Seen) -> dict[str, Any]:
    workers = [{"name": one.folder.name, "standing": one.standing, "state": one.state} for one in seen.workers]
    return {
        "standing": seen.instance.standing,
        "trouble": list(seen.wrong),
        "state": seen.instance.state,
        "workers": workers,
        "targets": seen.past.counts,
        "last_hour": vars(_sum(seen.past, 1)),
        "last_day": vars(_sum(seen.past, history.HOURS)),
        "failures_by_code": seen.codes,
        "remedies": {code: remedy(code) for code in seen.remedies},
    }


def _show(config: Config, seen: _Seen) -> None:
    say = sys.stdout.write
    found, now = seen.instance.state, time.time()
    say(f"{config.instance}: {'only workers are here' if seen.has_workers_only else seen.instance.standing}")
    if found is not None:
        say(f", version {found['version']}, process {found['pid']}, started {ago(found['started'], now)}")
    say("\n")
    for one in seen.wrong:
        say(f"  ! {plain(one)}\n")
    if found is not None:
        say("".join(f"{line}\n" for line in _polls(found, now)))
        _show_work(config, found, now)
    if not seen.has_workers_only:
        say("".join(f"{line}\n" for line in _numbers(seen.past)))
    if seen.workers:
        show_workers(seen.workers, config.advanced.worker_threads, now)
    if seen.codes:
        rows = [(str(count), code, state) for code, state, count in seen.codes[:REASONS]]
        show_table(("files", "code", "state"), rows, "failures; `failed` lists them, `retry` puts them back")
    show_remedies(seen.remedies)


def _show_work(config: Config, found: dict[str, Any], now: float) -> None:
    """Print what is at work and waits: in the fleet, or in the instance itself."""
    fleet = from_plain(found.get("fleet"))
    if fleet is not None:
        show_fleet(fleet)
        return
    threads, running = config.advanced.worker_threads, jobs(found)
    sys.stdout.write(f"queue: {found['queued']}, running: {len(running)} of {threads} workers\n")
    if running:
        show_table(RUNNING_HEAD, [running_row(one, now) for one in running], "running")


def _polls(found: dict[str, Any], now: float) -> list[str]:
    polls = found["polls"]
    if polls["last_success"] is None:
        last = "no poll has ended yet"
    else:
        met = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in polls["result"].items() if count)
        last = f"last poll: {ago(polls['last_success'], now)}, took {span(polls['seconds'])}: {met or 'found nothing'}"
    lines = [last]
    if polls.get("next_due"):
        due = polls["next_due"]
        lines.append(f"next poll: {ago(due, now) if due > now + 1 else 'now'}")
    if polls["oldest_open"] is not None:
        begun = polls["oldest_open"]
        lines.append(f"oldest call without its muxed file: began {moment(begun)}, {ago(begun, now)}")
    return lines


def _numbers(past: History) -> list[str]:
    if past.problem:
        return [past.problem]
    lines = []
    for words, hours in (("last hour", 1), ("last 24 hours", history.HOURS)):
        one = _sum(past, hours)
        amount = f"{one.media_seconds / HOUR:.1f} h of media, {one.bytes / 1e6:.0f} MB"
        lines.append(f"{words}: {one.muxed} muxed, {one.failed} failed, {amount}")
    kept = ", ".join(f"{count} {state}" for state, count in sorted(past.counts.items()))
    return [*lines, f"journal: {kept or 'empty'}"]


def _sum(past: History, hours: int) -> history.Hour:
    """Return what ended in the running hour and those before it, so many in all and the running one."""
    taken = past.hours[-hours - 1 :]
    return history.Hour(
        taken[0].start if taken else 0,
        sum(one.muxed for one in taken),
        sum(one.failed for one in taken),
        sum(one.media_seconds for one in taken),
        sum(one.bytes for one in taken),
    )
