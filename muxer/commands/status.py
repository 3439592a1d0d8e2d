"""``status``: how the running instance stands, read from what it tells; it is neither asked nor held up."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from muxer.commands.common import guarded, loaded, parser, show_json, show_remedies, show_table
from muxer.commands.instance import Instance, look, trouble
from muxer.config.schema import Config
from muxer.exits import EXIT_FAILED, EXIT_OK
from muxer.monitoring import history
from muxer.monitoring.history import HOUR, History
from muxer.monitoring.words import ago, moment, span
from muxer.observe.logs import plain
from muxer.progress import progress, shown
from muxer.remedies import remedy

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
        instance = look(config)
        past = history.read(instance.journal if instance.journal.exists() else None, time.time())
        wrong = trouble(instance, config)
        if arguments.watch and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        if arguments.json:
            show_json(_facts(instance, past, wrong))
        else:
            _show(config, instance, past, wrong)
        if not arguments.watch:
            return EXIT_FAILED if wrong else EXIT_OK
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)


def _facts(instance: Instance, past: History, wrong: Sequence[str]) -> dict[str, Any]:
    codes = history.by_code(instance.journal)
    return {
        "standing": instance.standing,
        "trouble": list(wrong),
        "state": instance.state,
        "targets": past.counts,
        "last_hour": vars(_sum(past, 1)),
        "last_day": vars(_sum(past, history.HOURS)),
        "failures_by_code": codes,
        "remedies": {code: remedy(code) for code in _codes(wrong, codes)},
    }


def _show(config: Config, instance: Instance, past: History, wrong: Sequence[str]) -> None:
    say = sys.stdout.write
    found, now = instance.state, time.time()
    say(f"{config.instance}: {instance.standing}")
    if found is not None:
        say(f", version {found['version']}, process {found['pid']}, started {ago(found['started'], now)}")
    say("\n")
    for one in wrong:
        say(f"  ! {plain(one)}\n")
    if found is not None:
        say("".join(f"{line}\n" for line in _polls(found, now)))
        say(f"queue: {found['queued']}, running: {len(found['running'])} of {config.advanced.worker_threads} workers\n")
    say("".join(f"{line}\n" for line in _numbers(past)))
    if found is not None and found["running"]:
        rows = [_running(one, now) for one in found["running"]]
        show_table(("recording", "agent", "step", "for", "progress"), rows, "running")
    codes = history.by_code(instance.journal)[:REASONS]
    if codes:
        rows = [(str(count), code, state) for code, state, count in codes]
        show_table(("files", "code", "state"), rows, "failures; `failed` lists them, `retry` puts them back")
    show_remedies(_codes(wrong, codes))


def _codes(wrong: Sequence[str], failures: Iterable[tuple[str, str, int]]) -> set[str]:
    """Return the codes that are named by what is wrong and by the failures."""
    return {code for code, _, _ in failures} | set(_CODE.findall(" ".join(wrong)))


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


def _running(one: dict[str, Any], now: float) -> tuple[str, ...]:
    far = shown(progress(one["done"], one["total"], one["step_begun"], now), one["step"])
    return one["recording"], one["agent"], one["step"], span(now - one["begun"]), far
