"""Options of the command `audit`: what they mean, and what is wrong with them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from muxer.audit.deep_check import Sample
from muxer.audit.pace import DEFAULT_RATE
from muxer.audit.scope import AuditScope, PastEncryption, site_facts
from muxer.audit.spans import Span, parse_audit_time
from muxer.commands._shared.common import create_parser
from muxer.config import types
from muxer.config.schema import Config
from muxer.errors import ConfigError, Problem
from muxer.system import files
from muxer.system.allowed_hours import AllowedHours


def create_audit_parser() -> argparse.ArgumentParser:
    """Return the parser."""
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


def read_options(
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

    now = datetime.now(UTC)
    start = read_option("--from", arguments.start, parse_audit_time)
    end = read_option("--to", arguments.end or str(int(now.timestamp() * 1000)), parse_audit_time)
    query = read_option("--query", arguments.query, _parse_query)
    hours = read_option("--hours", arguments.hours, AllowedHours.parse)
    sample = read_option("--sample", arguments.sample, Sample.parse) or Sample()
    given = {
        "encrypted_since": read_option("--encrypted-since", arguments.encrypted_since, types.parse_time),
        "former_certificates": read_option("--former-certificates", arguments.former_certificates, types.parse_certificate),
    }
    options = replace(config.audit, **{name: value for name, value in given.items() if value is not None})
    if start is not None and end is not None and start >= end:
        problems.append(
            Problem("--to", "it is not after --from") if arguments.end else Problem("--from", "it is in the future")
        )
    if options.encrypted_since is not None and options.encrypted_since > now:
        option = "--encrypted-since" if arguments.encrypted_since else "[audit] encrypted_since"
        problems.append(Problem(option, "it is in the future"))
    problems += _find_unusable_files(arguments)
    problems += _find_conflicts(arguments)
    if problems:
        raise ConfigError(problems)
    span = None if start is None or end is None else Span(start, end)
    encryption = PastEncryption.from_options(options)
    scope = AuditScope(span, query or "", arguments.own_shard, encryption)
    request = {
        "from": start,
        "to": end if arguments.end else None,
        "query": arguments.query,
        "own_shard": arguments.own_shard,
        "shard": f"{config.processing.muxer_id}/{config.processing.total_muxers}" if arguments.own_shard else None,
        **site_facts(config),
        "deep": f"{sample.part}/{sample.whole}" if arguments.deep else None,
        "orphans": arguments.orphans,
        **encryption.facts,
    }
    return scope, hours, sample, request


def _parse_query(text: str) -> str:
    if not text.strip():
        raise ValueError("must have the form name=value[&name=value...]")
    return types.parse_query(text)


def _find_unusable_files(arguments: argparse.Namespace) -> list[Problem]:
    """Return which files could not be written, or would replace another one. Nothing is written yet."""
    problems, report, state = [], arguments.html, arguments.state
    for option, path, find_obstacle in (("--state", state, _state_obstacle), ("--html", report, _report_obstacle)):
        try:
            obstacle = "" if path is None else find_obstacle(path)
        except OSError as error:  # A folder above it is closed to this account.
            obstacle = f"{path} cannot be used: {error.strerror}"
        if obstacle:
            problems.append(Problem(option, obstacle))
    if report is None:
        return problems
    others = {
        "--config-file": arguments.config_file,
        "--state": state,
        "--former-certificates": arguments.former_certificates,
    }
    for option, other in others.items():
        # Path.resolve raises RuntimeError for a link that leads to itself, before Python 3.13.
        if other is not None and os.path.realpath(report) == os.path.realpath(other):
            problems.append(Problem("--html", f"{report} is the file of {option}; name another"))
    return problems


def _find_conflicts(arguments: argparse.Namespace) -> list[Problem]:
    """Return what is wrong with options that each are right."""
    repairs = arguments.repair or arguments.delete_orphans
    cannot_ask = repairs and not arguments.yes and not (sys.stdin is not None and sys.stdin.isatty())
    changing = "--repair" if arguments.repair else "--delete-orphans"
    wrong = {
        ("--from", "give either --from and --to, or --query"): (arguments.start is None) == (arguments.query is None),
        ("--to", "it has no meaning with --query"): arguments.query is not None and arguments.end is not None,
        ("--rate", "it is not above 0"): not arguments.rate > 0,
        ("--sample", "it has no meaning without --deep"): bool(arguments.sample) and not arguments.deep,
        ("--names", "it has no meaning without --html"): arguments.names and arguments.html is None,
        ("--delete-orphans", "it has no meaning without --orphans"): arguments.delete_orphans and not arguments.orphans,
        ("--yes", "it has no meaning without --repair or --delete-orphans"): arguments.yes and not repairs,
        (changing, "there is no terminal to ask on; add --yes"): cannot_ask,
    }
    return [Problem(option, what) for (option, what), is_wrong in wrong.items() if is_wrong]


def _state_obstacle(state: Path) -> str:
    return f"{state} is no file" if files.exists(state) and not files.is_file(state) else ""


def _report_obstacle(report: Path) -> str:
    folder = report.absolute().parent
    if files.is_folder(report):
        return f"{report} is a folder; name a file"
    return "" if os.access(folder, os.W_OK) else f"the folder {folder} does not exist or is not writable"
