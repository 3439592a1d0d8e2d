"""``check``: is everything in place? A checklist, and for each line that is not ok, what to do. Nothing is changed, but
with ``--write`` a file of 4 MB is uploaded to each storage and deleted."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from muxer.checks.checklist import Finding, Status, run
from muxer.checks.everything import Everything, unusable
from muxer.commands.common import given, guarded, parser, show_json
from muxer.config import Reading, read
from muxer.exits import EXIT_CONFIG, EXIT_FAILED, EXIT_OK
from muxer.masking import Mask
from muxer.observe.logs import plain

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}


def main(argv: Sequence[str]) -> int:
    """Given the arguments of the command, print the checklist and return the exit code."""
    made = parser("check", "Look whether everything is in place, and say what to do where it is not. Nothing is changed.")
    made.add_argument("--write", action="store_true", help="also upload a file of 4 MB to each storage, and delete it")
    made.epilog = "Exit code: 0 all ok or warnings, 1 something failed, 2 the configuration cannot be used."
    arguments = made.parse_args(argv)
    return guarded(lambda: _check(arguments))


def _check(arguments: argparse.Namespace) -> int:
    logging.getLogger().addHandler(logging.NullHandler())  # what the parts of the muxer log is no part of the list
    path = Path(arguments.config_file)
    reading = read(path, given(arguments), os.environ)
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="recording-muxer-check-", ignore_cleanup_errors=True) as scratch:
        checks = Everything(reading, path, Path(scratch), arguments.write, stop).checks()
        found = _masked(run(checks, unusable(reading)), Mask(reading.config.secrets))
        shown = _show(found, arguments.json)
        stop.set()
    code = exit_code(reading, shown)
    if arguments.json:
        counts = Counter(one.status for one in shown)
        show_json({"exit_code": code, "counts": counts, "checks": [asdict(one) for one in shown]})
    return code


def exit_code(reading: Reading, findings: Sequence[Finding]) -> int:
    """Given what was read of the configuration and what was found, return the exit code."""
    if reading.problems:
        return EXIT_CONFIG
    return EXIT_FAILED if any(one.status is Status.FAILED for one in findings) else EXIT_OK


def _masked(findings: Iterator[Finding], mask: Mask) -> Iterator[Finding]:
    """Yield findings without secrets, and without characters that command a terminal."""
    for one in findings:
        yield replace(one, found=plain(mask(one.found)), check=plain(mask(one.check)), advice=plain(mask(one.advice)))


def _show(findings: Iterator[Finding], as_json: bool) -> list[Finding]:
    """Print findings as they come, on a terminal as a table when all are there; return them."""
    if as_json:
        return list(findings)
    if sys.stdout.isatty():
        return _draw(findings)
    shown = []
    for one in findings:
        shown.append(one)
        sys.stdout.write("\t".join(filter(None, (one.status, one.check, one.found, one.advice))) + "\n")
        sys.stdout.flush()
    sys.stdout.write(f"{_summary(shown)}\n")
    return shown


def _draw(findings: Iterator[Finding]) -> list[Finding]:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, shown = Console(), []
    with console.status("checking") as status:
        for one in findings:
            shown.append(one)
            status.update(f"checking, {len(shown)} done")
    table = Table(box=SIMPLE_HEAD)
    for head in ("", "check", "found"):
        table.add_column(head, overflow="fold")
    for one in shown:
        style = _STYLES[one.status]
        text = Text(one.found)
        if one.advice:
            text.append(f"\n→ {one.advice}", style="bold" if one.status is not Status.SKIPPED else "")
        table.add_row(Text(one.status, style=style), Text(one.check), text)
    console.print(table)
    console.print(_summary(shown), highlight=False)
    return shown


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(one.status for one in findings)
    return ", ".join(f"{counts[one]} {one}{'s' * (one is Status.WARNING and counts[one] != 1)}" for one in Status)
