"""Shows the result of the command `audit`: as text, as JSON, and as a report in HTML."""

from __future__ import annotations

import argparse
import io
import json
import sys
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path

from muxer.audit.findings import TEXTS, Finding
from muxer.audit.html_report import write_report
from muxer.audit.ledger import AuditLedger
from muxer.audit.report import AuditSummary, finding_facts, format_epoch, report_facts
from muxer.commands._shared.common import show_table, write_result
from muxer.errors import ConfigError, Problem
from muxer.system.exit_codes import EXIT_OK, EXIT_SOME_FAILED
from muxer.system.files import open_private

# A terminal shows the first findings; reports have all.
MAX_SHOWN_FINDINGS = 50


def show_result(arguments: argparse.Namespace, ledger: AuditLedger, *, shown_again: bool) -> int:
    """Show the result, and return the exit code. `shown_again`: the audit was finished before, and nothing was done now."""
    summary, source = AuditSummary.from_ledger(ledger), str(arguments.state) if shown_again else ""
    show = partial(_write_json if arguments.json else print_result, ledger, source)
    code = write_result(show, EXIT_OK if summary.is_complete else EXIT_SOME_FAILED)
    if arguments.html is not None:
        _write_html(arguments.html, ledger, arguments.names, shown_again)
    return code


def _write_html(path: Path, ledger: AuditLedger, names: bool, shown_again: bool) -> None:
    try:
        with open_private(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="\n") as text:
            write_report(text, ledger, datetime.now(UTC), names=names, shown_again=shown_again)
    except OSError as error:
        raise ConfigError([Problem("--html", f"{path} cannot be written: {error.strerror}")]) from error


def _write_json(ledger: AuditLedger, shown_again: str) -> None:
    """Print the report as JSON, one finding after the other: there may be a million."""
    out = sys.stdout
    out.write("{")
    for number, (name, value) in enumerate(report_facts(ledger, shown_again)):
        out.write(f"{',' if number else ''}\n {json.dumps(name)}: ")
        if name == "list":
            out.write("[")
            for row, facts in enumerate(value):
                out.write(f"{',' if row else ''}\n  {json.dumps(facts, ensure_ascii=False)}")
            out.write("]")
        else:
            out.write(json.dumps(value, ensure_ascii=False))
    out.write("\n}\n")


def print_result(ledger: AuditLedger, shown_again: str) -> None:
    """Print the result as text; `shown_again` is the state file of an audit that was finished before, else empty."""
    summary = AuditSummary.from_ledger(ledger)
    total = sum(summary.findings.values())
    if total:
        shown = min(total, MAX_SHOWN_FINDINGS) if sys.stdout.isatty() else total
        rows = (_table_row(finding, repair) for finding, repair in islice(ledger.read_findings(), shown))
        show_table(("call began", "recording", "what is wrong", "file"), rows)
        if shown < total:
            sys.stdout.write(f"{total - shown:,} more; --html or --json show all\n")
        for kind, count in summary.findings.items():
            left = summary.open.get(kind, 0)
            if left < count:
                sys.stdout.write(f"{count - left:,} x {TEXTS[kind].title}: corrected.\n")
            if left:
                sys.stdout.write(f"{left:,} x {TEXTS[kind].title}. {TEXTS[kind].remedy}.\n")
    sys.stdout.write(f"{summary.describe()}\n")
    if shown_again:
        sys.stdout.write(
            f"this audit was finished on {format_epoch(summary.finished)}, and is shown again from {shown_again}; "
            "delete that file or name another for a new audit\n"
        )


def _table_row(finding: Finding, repair: str) -> tuple[str, ...]:
    facts = finding_facts(finding, repair)
    what = f"{facts['what']}: {facts['detail']}" + (f" ({repair})" if repair else "")
    return facts["call_started"], finding.recording, what, finding.file
