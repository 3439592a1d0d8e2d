"""Command `check`: shows for each problem what to do. Changes nothing, but for a test file of 4 MB with ``--write``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
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

# From this number of failures on, a line under the list names the one to begin with.
MIN_FAILURES_TO_ORDER = 2
_STYLES = {
    CheckStatus.OK: "green",
    CheckStatus.WARNING: "yellow",
    CheckStatus.FAILED: "bold red",
    CheckStatus.SKIPPED: "dim",
}


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments after its name and return the exit code."""
    parser = create_parser(
        "check", "Check configuration, programs and services, and show for each problem what to do. Nothing is changed."
    )
    parser.add_argument("--write", action="store_true", help="also upload a file of 4 MB to each storage and delete it")
    parser.epilog = "Exit code: 0 no failure, 1 a check failed, 2 the configuration cannot be used."
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: _run_check(arguments))


def _run_check(arguments: argparse.Namespace) -> int:
    logging.getLogger().addHandler(logging.NullHandler())  # keeps log messages out of the checklist
    path = Path(arguments.config_file)
    reading = inspect_config(path, override_options(arguments), os.environ)
    stop = threading.Event()
    suite = CheckSuite(reading, path, arguments.write, stop)
    reasons = {f"[{section}] {name}": reason for (section, name), reason in reading.unknown.items()}
    found = run_checks(suite.create_checks(), unusable_options(reading), reasons)
    findings = _mask_findings(found, Mask(reading.config.secret_values))
    try:
        shown = _print_findings(findings, arguments.json)
    finally:
        stop.set()
        for file in suite.remove_test_files():
            sys.stderr.write(f"the test file {escape_control(file)} or its unfinished upload may be left: delete it there\n")
    code = exit_code_for(reading, shown)
    if arguments.json:
        counts = Counter(finding.status for finding in shown)
        show_json({"exit_code": code, "counts": counts, "checks": [asdict(finding) for finding in shown]})
    return code


def exit_code_for(reading: ConfigReading, findings: Sequence[Finding]) -> int:
    """Return the exit code for the `findings`."""
    if reading.problems:
        return EXIT_CONFIG
    return EXIT_FAILED if any(finding.status is CheckStatus.FAILED for finding in findings) else EXIT_OK


def _mask_findings(findings: Iterator[Finding], mask: Mask) -> Iterator[Finding]:
    for finding in findings:
        texts = (finding.found, finding.check, finding.advice)
        found, check, advice = (escape_control(mask(text)) for text in texts)
        yield replace(finding, found=found, check=check, advice=advice)


def _print_findings(findings: Iterator[Finding], as_json: bool) -> list[Finding]:
    """Print findings as they arrive, on a terminal as a table at the end; return them."""
    if as_json:
        return list(findings)
    if sys.stdout.isatty():
        return _print_table(findings)
    shown = []
    for finding in findings:
        shown.append(finding)
        cells = (finding.status, finding.check, finding.found, finding.advice)
        sys.stdout.write("\t".join(filter(None, cells)) + "\n")
        sys.stdout.flush()
    sys.stdout.write(f"{_summary_text(shown)}\n{_first_fix(shown)}")
    return shown


def _print_table(findings: Iterator[Finding]) -> list[Finding]:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, shown = Console(), []
    with console.status("checking") as status:
        for finding in findings:
            shown.append(finding)
            status.update(f"checking, {len(shown)} done")
    table = Table(box=SIMPLE_HEAD)
    for head in ("", "check", "found"):
        table.add_column(head, overflow="fold")
    for finding in shown:
        text = Text(finding.found)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style="bold" if finding.status is not CheckStatus.SKIPPED else "")
        table.add_row(Text(finding.status, style=_STYLES[finding.status]), Text(finding.check), text)
    console.print(table)
    console.print(_summary_text(shown), highlight=False)
    console.print(_first_fix(shown), highlight=False, markup=False, end="", soft_wrap=True)
    return shown


def _first_fix(findings: Sequence[Finding]) -> str:
    """Return the line that names the first of several failures: the others may follow from it."""
    failed = [finding for finding in findings if finding.status is CheckStatus.FAILED]
    if len(failed) < MIN_FAILURES_TO_ORDER:
        return ""
    first = failed[0]
    # Advice such as "correct it: muxer.cfg, line 3" does not name the option; the finding does.
    advice = first.advice if "[" in first.advice else f"{first.found}; {first.advice}"
    return f"fix this first: {first.check}: {advice}\n"


def _summary_text(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.status for finding in findings)
    plural = {CheckStatus.WARNING: "s"} if counts[CheckStatus.WARNING] != 1 else {}
    return ", ".join(f"{counts[status]} {status}{plural.get(status, '')}" for status in CheckStatus)
