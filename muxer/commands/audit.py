"""Command `audit`: prove that every call recording of a span of time is muxed, whole and where its metadata say."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
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
from muxer.audit.pace import DEFAULT_RATE, Pace
from muxer.audit.repair import REPAIRABLE, Repairer
from muxer.audit.report import AuditSummary, finding_facts, report_facts
from muxer.audit.scope import AuditScope, PastEncryption
from muxer.audit.spans import Span, parse_audit_time
from muxer.commands._shared.common import create_parser, exit_code_of, load_configuration, show_table
from muxer.commands._shared.embedded_muxer import Outcome, run_command
from muxer.config import types
from muxer.config.schema import Config
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
    arguments = _create_parser().parse_args(argv)
    return exit_code_of(lambda: _run_or_report(arguments))


def _create_parser() -> argparse.ArgumentParser:
    parser = create_parser("audit", "Prove that every call recording is muxed, whole and where its metadata say.")
    which = parser.add_argument_group("what is audited")
    which.add_argument("--from", dest="start", metavar="T", help="calls that began at or after T")
    which.add_argument("--to", dest="end", metavar="T", help="and before T; now if it is left out")
    which.add_argument("--query", metavar="QUERY", help="instead: as in call_recording_query_string")
    which.add_argument("--own-shard", action="store_true", help="only the calls of this instance (muxer_id)")
    which.add_argument("--orphans", action="store_true", help="also look for stored files that no metadata name")
    which.add_argument("--deep", action="store_true", help="also fetch muxed files and compare them with their sources")
    which.add_argument("--sample", metavar="1/N", help="with --deep: only this share of the calls")
    which.add_argument("--encrypted-since", metavar="T", help="when the site began to encrypt, if after its certificates")
    which.add_argument("--former-certificates", metavar="FILE", help="PEM file of encryption certificates of earlier times")
    how = parser.add_argument_group("how")
    how.add_argument("--state", metavar="FILE", type=Path, help="where an audit that was stopped goes on")
    how.add_argument("--rate", metavar="N", type=float, default=DEFAULT_RATE, help="requests a second (default 20)")
    how.add_argument("--hours", metavar="20-6", help="work only in these hours of this machine's clock")
    how.add_argument("--html", metavar="FILE", type=Path, help="write a report to FILE")
    how.add_argument("--names", action="store_true", help="with --html: also names of sources, which may be of people")
    repair = parser.add_argument_group("repair")
    repair.add_argument("--repair", action="store_true", help="let the muxer correct what it can; no source is touched")
    repair.add_argument("--delete-orphans", action="store_true", help="with --orphans: delete those older than a week")
    repair.add_argument("--yes", action="store_true", help="do not ask before a repair")
    return parser


def _run_or_report(arguments: argparse.Namespace) -> int:
    """Run the audit; an error of the state file or the report is printed with what to do."""
    try:
        return _run_audit(arguments)
    except LocalResourceError as error:
        sys.stderr.write(f"{escape_control(format_error(error))}\nwhat to do: {help_for(error.code)}\n")
        return EXIT_FAILED


def _run_audit(arguments: argparse.Namespace) -> int:
    config = load_configuration(arguments, needs_secrets=False).config
    scope, hours, sample, request = _read_options(arguments, config)
    with _state_file(arguments.state) as path:
        # A state file of another audit is refused before anything is sent.
        with _open_ledger(path, request) as ledger:
            scope = _keep_end(scope, ledger)

        def audit(muxer: ServiceParts) -> Outcome:
            with _open_ledger(path, request) as ledger:
                pace = _create_pace(arguments, hours, muxer)
                if not ledger.read_fact("finished", False):
                    _audit_calls(muxer, ledger, scope, pace, sample if arguments.deep else None)
                    if arguments.orphans:
                        _list_orphans(muxer, ledger, pace)
                    ledger.write_facts({"finished": True})
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
            result = _show_result(arguments, ledger)
        return code or result


def _keep_end(scope: AuditScope, ledger: AuditLedger) -> AuditScope:
    """Let an audit without --to that goes on end where it was to end when it began."""
    if scope.span is None:
        return scope
    until = ledger.read_fact("until", scope.span.end)
    ledger.write_facts({"until": until})
    return replace(scope, span=Span(scope.span.start, until))


def _read_options(
    arguments: argparse.Namespace, config: Config
) -> tuple[AuditScope, AllowedHours | None, Sample, dict[str, Any]]:
    """Return what the options mean, and the settings that a state file must have. Raises ConfigError."""
    problems: list[Problem] = []

    def read_option(option: str, text: str | None, parse: Callable[[str], Any]) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            problems.append(Problem(option, str(error)))
            return None

    start = read_option("--from", arguments.start, parse_audit_time)
    end = read_option("--to", arguments.end or str(int(time.time() * 1000)), parse_audit_time)
    hours = read_option("--hours", arguments.hours, AllowedHours.parse)
    sample = read_option("--sample", arguments.sample, Sample.parse) or Sample()
    given = {
        "encrypted_since": read_option("--encrypted-since", arguments.encrypted_since, types.parse_time),
        "former_certificates": read_option("--former-certificates", arguments.former_certificates, types.parse_certificate),
    }
    folder = arguments.html.absolute().parent if arguments.html is not None else None
    if folder is not None and not os.access(folder, os.W_OK):
        problems.append(Problem("--html", f"the folder {folder} does not exist or is not writable"))
    if start is not None and end is not None and start >= end:
        problems.append(Problem("--to", "it is not after --from"))
    problems += _find_conflicts(arguments)
    if problems:
        raise ConfigError(problems)
    span = None if start is None or end is None else Span(start, end)
    options = replace(config.audit, **{name: value for name, value in given.items() if value is not None})
    encryption = PastEncryption.from_options(options)
    scope = AuditScope(span, arguments.query or "", arguments.own_shard, encryption)
    request = {
        "from": start,
        "to": end if arguments.end else None,
        "query": arguments.query,
        "own_shard": arguments.own_shard,
        "deep": f"{sample.part}/{sample.whole}" if arguments.deep else None,
        "orphans": arguments.orphans,
        **encryption.facts,
    }
    return scope, hours, sample, request


def _find_conflicts(arguments: argparse.Namespace) -> list[Problem]:
    """Return what is wrong with options that each are right."""
    repairs = arguments.repair or arguments.delete_orphans
    wrong = {
        ("--from", "give either --from and --to, or --query"): (arguments.start is None) == (arguments.query is None),
        ("--to", "it has no meaning with --query"): arguments.query is not None and arguments.end is not None,
        ("--rate", "it is not above 0"): not arguments.rate > 0,
        ("--sample", "it has no meaning without --deep"): bool(arguments.sample) and not arguments.deep,
        ("--delete-orphans", "it has no meaning without --orphans"): arguments.delete_orphans and not arguments.orphans,
        ("--repair", "there is no terminal to ask on; add --yes"): repairs and not arguments.yes and not sys.stdin.isatty(),
    }
    return [Problem(option, what) for (option, what), is_wrong in wrong.items() if is_wrong]


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


def _show_result(arguments: argparse.Namespace, ledger: AuditLedger) -> int:
    summary = AuditSummary.from_ledger(ledger)
    if arguments.json:
        _write_json(ledger)
    else:
        _print_result(ledger, summary)
    if arguments.html is not None:
        _write_html(arguments.html, ledger, arguments.names)
    return EXIT_OK if summary.is_complete else EXIT_SOME_FAILED


def _write_html(path: Path, ledger: AuditLedger, names: bool) -> None:
    try:
        with open_private(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="\n") as text:
            write_report(text, ledger, datetime.now(UTC), names=names)
    except OSError as error:
        raise ConfigError([Problem("--html", f"{path} cannot be written: {error.strerror}")]) from error


def _write_json(ledger: AuditLedger) -> None:
    """Print the report as JSON, one finding after the other: there may be a million."""
    out = sys.stdout
    out.write("{")
    for number, (name, value) in enumerate(report_facts(ledger)):
        out.write(f"{',' if number else ''}\n {json.dumps(name)}: ")
        if name == "list":
            out.write("[")
            for row, facts in enumerate(value):
                out.write(f"{',' if row else ''}\n  {json.dumps(facts, ensure_ascii=False)}")
            out.write("]")
        else:
            out.write(json.dumps(value, ensure_ascii=False))
    out.write("\n}\n")


def _print_result(ledger: AuditLedger, summary: AuditSummary) -> None:
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


def _table_row(finding: Finding, repair: str) -> tuple[str, ...]:
    facts = finding_facts(finding, repair)
    what = f"{facts['what']}: {facts['detail']}" + (f" ({repair})" if repair else "")
    return facts["call_started"], finding.recording, what, finding.file
