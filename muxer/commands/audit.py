"""Command `audit`: prove that every call recording of a span of time is muxed, whole and where its metadata say."""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from muxer.app.service import ServiceParts
from muxer.audit.auditor import AuditedCall, Auditor
from muxer.audit.call_rules import CallVerdict
from muxer.audit.deep_check import DeepCheck, Sample
from muxer.audit.findings import TEXTS, Finding, FindingKind
from muxer.audit.html_report import write_report
from muxer.audit.ledger import LEDGER_FILE, AuditLedger
from muxer.audit.orphans import OrphanSearch
from muxer.audit.pace import Pace
from muxer.audit.repair import REPAIRABLE, Repairer
from muxer.audit.report import AuditSummary, finding_facts, format_epoch, report_facts
from muxer.audit.scope import AuditScope
from muxer.audit.spans import Span
from muxer.commands._shared.audit_options import create_audit_parser, read_options
from muxer.commands._shared.common import exit_code_of, load_configuration, show_table, write_result
from muxer.commands._shared.embedded_muxer import Outcome, run_command
from muxer.errors import ConfigError, LocalResourceError, MuxerError, Problem, Stopped, format_error
from muxer.gir.targets import TargetOptions
from muxer.log.setup import escape_control
from muxer.pipeline.job import Job
from muxer.status.error_help import help_for
from muxer.status.progress import format_duration
from muxer.system.allowed_hours import AllowedHours
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_SOME_FAILED
from muxer.system.file_lock import LockHeld, acquire_lock
from muxer.system.files import open_private

log = logging.getLogger(__name__)
Part = TypeVar("Part")

# A terminal shows the first findings; reports have all.
MAX_SHOWN_FINDINGS = 50
REPORT_SECONDS = 60.0


def main(argv: Sequence[str]) -> int:
    """Run the command; return 0 when all is complete, 4 with findings, 1 after an error, 2 for a wrong option."""
    arguments = create_audit_parser().parse_args(argv)
    return exit_code_of(lambda: _run_or_report(arguments))


def _run_or_report(arguments: argparse.Namespace) -> int:
    """Run the audit; an error of the state file or the report is printed with what to do."""
    try:
        return _run_audit(arguments)
    except LocalResourceError as error:
        sys.stderr.write(f"{escape_control(format_error(error))}\nwhat to do: {help_for(error.code)}\n")
        return EXIT_FAILED


def _run_audit(arguments: argparse.Namespace) -> int:
    config = load_configuration(arguments, needs_secrets=False).config
    scope, hours, sample, request = read_options(arguments, config)
    with _state_file(arguments.state) as path:
        # A state file of another audit is refused before anything is sent.
        with _open_ledger(path, request) as ledger:
            scope = _keep_end(scope, ledger)
            is_finished = ledger.read_fact("finished", None) is not None

        def audit(muxer: ServiceParts) -> Outcome:
            with _open_ledger(path, request) as ledger:
                pace = _create_pace(arguments, hours, muxer)
                if not is_finished:
                    _audit_calls(muxer, ledger, scope, pace, sample if arguments.deep else None)
                    if arguments.orphans:
                        _list_orphans(muxer, ledger, pace)
                    ledger.write_facts({"finished": time.time()})
                return lambda: EXIT_OK

        code = run_command(arguments, audit, steps=False, needs_programs=arguments.deep)
        if code != EXIT_OK:
            if arguments.state is not None:
                sys.stderr.write(f"the same command goes on where this audit was stopped (--state {arguments.state})\n")
            return code
        with _open_ledger(path, request) as ledger:
            wanted = _wanted_repairs(arguments, ledger)
        if wanted and not _is_confirmed(arguments, wanted):
            sys.stderr.write("nothing was repaired\n")
        elif wanted:
            code = run_command(arguments, partial(_repair_all, arguments, path, request, hours), steps=False)
        with _open_ledger(path, request) as ledger:
            result = _show_result(arguments, ledger, shown_again=is_finished)
        return code or result


def _keep_end(scope: AuditScope, ledger: AuditLedger) -> AuditScope:
    """Let an audit without --to that goes on end where it was to end when it began."""
    if scope.span is None:
        return scope
    until = ledger.read_fact("until", scope.span.end)
    ledger.write_facts({"until": until})
    return replace(scope, span=Span(scope.span.start, until))


@contextmanager
def _state_file(path: Path | None) -> Iterator[Path]:
    """Yield the state file, a temporary one when none is named."""
    if path is not None:
        try:
            lock = acquire_lock(path.with_name(f"{path.name}.lock"), path, "--state")
        except LockHeld as error:
            what = f"{path} is used by an audit that runs now: wait for its end, or name another file"
            raise ConfigError([Problem("--state", what)]) from error
        except OSError as error:
            raise ConfigError([Problem("--state", f"{path} cannot be used: {error.strerror or error}")]) from error
        with lock:
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="recording-muxer-audit-") as folder:
        yield Path(folder) / LEDGER_FILE


@contextmanager
def _open_ledger(path: Path, request: dict[str, Any]) -> Iterator[AuditLedger]:
    ledger = AuditLedger(path, request)
    try:
        yield ledger
    finally:
        ledger.close()


def _create_pace(arguments: argparse.Namespace, hours: AllowedHours | None, muxer: ServiceParts) -> Pace:
    def report_pause(minutes: int) -> None:
        log.info("pausing for %d minutes, until the allowed hours", minutes)

    return Pace(arguments.rate, hours, muxer.services.stop, report_pause)


def _audit_calls(muxer: ServiceParts, ledger: AuditLedger, scope: AuditScope, pace: Pace, sample: Sample | None) -> None:
    # A source that was cut off long ago was muxed as it is.
    services = replace(muxer.services, incoming=muxer.services.incoming.with_single_look())
    deep = DeepCheck(services, Job(services, TargetOptions.from_config(muxer.config.advanced)), pace)

    def compare(audited: AuditedCall) -> CallVerdict:
        is_chosen = sample is not None and sample.includes(audited.call.id)
        return deep.compare_call(audited) if is_chosen else audited.verdict

    auditor = Auditor(muxer.config, muxer.services, ledger, scope, pace, None if sample is None else compare)
    with muxer.services.activity.track_target("", "", "audit"):
        _report_each_minute(auditor.audit_calls(), lambda _: f"{ledger.read_fact('calls', 0):,} calls audited", ledger)


def _report_each_minute(parts: Iterator[Part], describe: Callable[[Part], str], ledger: AuditLedger) -> None:
    """Run through the parts of an audit; once a minute, log what was done."""
    started = reported = time.monotonic()
    for part in parts:
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            found = sum(ledger.count_findings().values())
            log.info("%s in %s, %s findings", describe(part), format_duration(reported - started), f"{found:,}")


def _list_orphans(muxer: ServiceParts, ledger: AuditLedger, pace: Pace) -> None:
    bulk = muxer.config.processing.batch_read_screen_recording_metadata
    search = OrphanSearch(muxer.services, ledger, pace, bulk=bulk)
    with muxer.services.activity.track_target("", "", "orphans"):
        _report_each_minute(search.record_orphans(), str, ledger)


def _wanted_repairs(arguments: argparse.Namespace, ledger: AuditLedger) -> int:
    """Return the number of findings that would be repaired."""
    kinds = (REPAIRABLE if arguments.repair else frozenset()) | (
        {FindingKind.ORPHAN} if arguments.delete_orphans else frozenset()
    )
    return sum(count for kind, count in ledger.count_findings().items() if kind in kinds)


def _is_confirmed(arguments: argparse.Namespace, wanted: int) -> bool:
    if arguments.yes:
        return True
    sys.stderr.write(f"{wanted} findings can be corrected now. No source file is touched. Go on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _repair_all(
    arguments: argparse.Namespace, path: Path, request: dict[str, Any], hours: AllowedHours | None, muxer: ServiceParts
) -> Outcome:
    pace = _create_pace(arguments, hours, muxer)
    with _open_ledger(path, request) as ledger:
        if arguments.repair:
            muxer.services.recover_leftovers()
            repairer = Repairer(muxer.services, muxer.job, ledger, pace)
            with muxer.services.activity.track_target("", "", "repair"):
                for finding, what in repairer.repair_findings():
                    log.info("%s: %s: %s", finding.recording, TEXTS[finding.kind].title, what)
        if arguments.delete_orphans:
            _delete_orphans(OrphanSearch(muxer.services, ledger, pace), ledger)
    return lambda: EXIT_OK


def _delete_orphans(search: OrphanSearch, ledger: AuditLedger) -> None:
    for orphan, found in search.list_found():
        try:
            what = search.delete_orphan(orphan, found)
        except Stopped:
            raise
        except MuxerError as error:
            what = f"not deleted: {format_error(error)}"
        ledger.record_repair(found, what)
        log.info("%s: %s", found.file, what)


def _show_result(arguments: argparse.Namespace, ledger: AuditLedger, *, shown_again: bool) -> int:
    summary, source = AuditSummary.from_ledger(ledger), str(arguments.state) if shown_again else ""
    show = partial(_write_json if arguments.json else _print_result, ledger, source)
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


def _print_result(ledger: AuditLedger, shown_again: str) -> None:
    summary = AuditSummary.from_ledger(ledger)
    total = sum(summary.findings.values())
    if total:
        shown = min(total, MAX_SHOWN_FINDINGS) if sys.stdout.isatty() else total
        rows = (_table_row(finding, repair) for finding, repair in islice(ledger.read_findings(), shown))
        show_table(("call began", "recording", "what is wrong", "file"), rows)
        if shown < total:
            sys.stdout.write(f"{total - shown:,} more; --html or --json show all\n")
        for kind, count in summary.findings.items():
            sys.stdout.write(f"{count:,} x {TEXTS[kind].title}. {TEXTS[kind].remedy}.\n")
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
