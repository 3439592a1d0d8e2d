"""Command `audit`: prove that every call recording of a span of time is muxed, whole and where its metadata say."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from muxer.app.service import ServiceParts
from muxer.audit.auditor import AuditedCall, Auditor
from muxer.audit.call_rules import CallVerdict
from muxer.audit.deep_check import DeepCheck, Sample
from muxer.audit.findings import TEXTS, FindingKind
from muxer.audit.ledger import LEDGER_FILE, AuditLedger
from muxer.audit.orphans import OrphanSearch
from muxer.audit.pace import Pace
from muxer.audit.repair import CLOSED, REPAIRABLE, Repairer
from muxer.audit.report import count_things
from muxer.audit.scope import AuditScope
from muxer.audit.spans import Span
from muxer.commands._shared.audit_options import create_audit_parser, read_options
from muxer.commands._shared.audit_output import show_result
from muxer.commands._shared.common import exit_code_of, load_configuration
from muxer.commands._shared.embedded_muxer import Outcome, run_command
from muxer.errors import ConfigError, LocalResourceError, MuxerError, Problem, Stopped, format_error
from muxer.gir.targets import TargetOptions
from muxer.log.setup import escape_control
from muxer.pipeline.job import Job
from muxer.status.error_help import help_for
from muxer.status.progress import format_duration
from muxer.system.allowed_hours import AllowedHours
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK
from muxer.system.file_lock import LockHeld, acquire_lock
from muxer.system.files import temporary_folder

log = logging.getLogger(__name__)
Part = TypeVar("Part")

REPORT_SECONDS = 60.0


def main(argv: Sequence[str]) -> int:
    """Run the command; return 0 when all is complete, 4 with findings or no call, 1 after an error, 2 for a wrong option."""
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
    loaded = load_configuration(arguments, needs_secrets=False)
    scope, hours, sample, request = read_options(arguments, loaded.config)
    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")
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

        code = run_command(arguments, audit, steps=False, needs_programs=arguments.deep or arguments.repair)
        if code != EXIT_OK:
            if arguments.state is not None:
                sys.stderr.write(f"the same command goes on where this audit was stopped (--state {arguments.state})\n")
            return code
        with _open_ledger(path, request) as ledger:
            wanted = _wanted_repairs(arguments, ledger)
        if wanted and not _is_confirmed(arguments, wanted):
            sys.stderr.write("nothing was repaired\n")
        elif wanted:
            repair = partial(_repair_all, arguments, path, request, hours)
            code = run_command(arguments, repair, steps=False, needs_programs=arguments.repair)
        with _open_ledger(path, request) as ledger:
            result = show_result(arguments, ledger, shown_again=is_finished)
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
    with temporary_folder("recording-muxer-audit-") as folder:
        yield folder / LEDGER_FILE


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
        _report_each_minute(
            auditor.audit_calls(), lambda _: f"{count_things(ledger.read_fact('calls', 0), 'call')} audited", ledger
        )


def _report_each_minute(parts: Iterator[Part], describe: Callable[[Part], str], ledger: AuditLedger) -> None:
    """Run through the parts of an audit; once a minute, log what was done."""
    started = reported = time.monotonic()
    for part in parts:
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            found = sum(ledger.count_findings().values())
            log.info("%s in %s, %s", describe(part), format_duration(reported - started), count_things(found, "finding"))


def _list_orphans(muxer: ServiceParts, ledger: AuditLedger, pace: Pace) -> None:
    bulk = muxer.config.processing.batch_read_screen_recording_metadata
    search = OrphanSearch(muxer.services, ledger, pace, bulk=bulk)
    with muxer.services.activity.track_target("", "", "orphans"):
        _report_each_minute(search.record_orphans(), str, ledger)


def _wanted_repairs(arguments: argparse.Namespace, ledger: AuditLedger) -> int:
    """Return the number of open findings that a repair would try to correct."""
    kinds = (REPAIRABLE if arguments.repair else frozenset()) | (
        {FindingKind.ORPHAN} if arguments.delete_orphans else frozenset()
    )
    return sum(count for kind, count in ledger.count_open(CLOSED).items() if kind in kinds)


def _is_confirmed(arguments: argparse.Namespace, wanted: int) -> bool:
    if arguments.yes:
        return True
    sys.stderr.write(
        f"Up to {count_things(wanted, 'finding')} can be corrected now. No source file is touched. Go on? [y/N] "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _repair_all(
    arguments: argparse.Namespace, path: Path, request: dict[str, Any], hours: AllowedHours | None, muxer: ServiceParts
) -> Outcome:
    pace = _create_pace(arguments, hours, muxer)
    with _open_ledger(path, request) as ledger:
        if arguments.repair:
            muxer.services.recover_leftovers()
            deletes = muxer.config.advanced.delete_superseded
            repairer = Repairer(muxer.services, muxer.job, ledger, pace, delete_superseded=deletes)
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
