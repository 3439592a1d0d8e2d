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

from muxer.checks.checklist import CheckStatus, Finding, run_checks
from muxer.checks.suite import CheckSuite, unusable_options
from muxer.commands._shared.common import create_parser, exit_code_of, override_options, show_json
from muxer.config import ConfigReading, inspect_config
from muxer.log.setup import escape_control
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, EXIT_OK
from muxer.system.masking import Mask

_STYLES = {
    CheckStatus.OK: "green",
    CheckStatus.WARNING: "yellow",
    CheckStatus.FAILED: "bold red",
    CheckStatus.SKIPPED: "dim",
}


def main(argv: Sequence[str]) -> int:
    """Given the arguments of the command, print the checklist and return the exit code."""
    made = create_parser(
        "check", "Look whether everything is in place, and say what to do where it is not. Nothing is changed."
    )
    made.add_argument("--write", action="store_true", help="also upload a file of 4 MB to each storage, and delete it")
    made.epilog = "Exit code: 0 all ok or warnings, 1 something failed, 2 the configuration cannot be used."
    arguments = made.parse_args(argv)
    return exit_code_of(lambda: _run_check(arguments))


def _run_check(arguments: argparse.Namespace) -> int:
    logging.getLogger().addHandler(logging.NullHandler())  # what the parts of the muxer log is no part of the list
    path = Path(arguments.config_file)
    reading = inspect_config(path, override_options(arguments), os.environ)
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="recording-muxer-check-", ignore_cleanup_errors=True) as scratch:
        checks = CheckSuite(reading, path, Path(scratch), arguments.write, stop).create_checks()
        found = _mask_findings(run_checks(checks, unusable_options(reading)), Mask(reading.config.secret_values))
        shown = _print_findings(found, arguments.json)
        stop.set()
    code = exit_code_for(reading, shown)
    if arguments.json:
        counts = Counter(one.status for one in shown)
        show_json({"exit_code": code, "counts": counts, "checks": [asdict(one) for one in shown]})
    return code


def exit_code_for(reading: ConfigReading, findings: Sequence[Finding]) -> int:
    """Given what was read of the configuration and what was found, return the exit code."""
    if reading.problems:
        return EXIT_CONFIG
    return EXIT_FAILED if any(one.status is CheckStatus.FAILED for one in findings) else EXIT_OK


def _mask_findings(findings: Iterator[Finding], mask: Mask) -> Iterator[Finding]:
    """Yield findings without secrets, and without characters that command a terminal."""
    for one in findings:
        yield replace(
            one,
            found=escape_control(mask(one.found)),
            check=escape_control(mask(one.check)),
            advice=escape_control(mask(one.advice)),
        )


def _print_findings(findings: Iterator[Finding], as_json: bool) -> list[Finding]:
    """Print findings as they come, on a terminal as a table when all are there; return them."""
    if as_json:
        return list(findings)
    if sys.stdout.isatty():
        return _print_table(findings)
    shown = []
    for one in findings:
        shown.append(one)
        sys.stdout.write("\t".join(filter(None, (one.status, one.check, one.found, one.advice))) + "\n")
        sys.stdout.flush()
    sys.stdout.write(f"{_summary_text(shown)}\n")
    return shown


def _print_table(findings: Iterator[Finding]) -> list[Finding]:
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
            text.append(f"\n→ {one.advice}", style="bold" if one.status is not CheckStatus.SKIPPED else "")
        table.add_row(Text(one.status, style=style), Text(one.check), text)
    console.print(table)
    console.print(_summary_text(shown), highlight=False)
    return shown


def _summary_text(findings: Sequence[Finding]) -> str:
    counts = Counter(one.status for one in findings)
    return ", ".join(f"{counts[one]} {one}{'s' * (one is CheckStatus.WARNING and counts[one] != 1)}" for one in CheckStatus)
