"""Command `failed`: list the failures that are set aside or retried, with their reasons."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from collections.abc import Sequence

from muxer.commands._shared.common import (
    create_parser,
    exit_code_of,
    fail,
    load_configuration,
    parse_code,
    show_json,
    show_remedies,
    show_table,
)
from muxer.commands._shared.running_instance import NO_JOURNAL, find_instance
from muxer.journal import history
from muxer.journal.history import TargetRecord
from muxer.journal.journal import RETRY, SET_ASIDE
from muxer.status.error_help import help_for
from muxer.status.formatting import format_ago, format_datetime
from muxer.system import files
from muxer.system.exit_codes import EXIT_OK

TABLE_HEADER = ("recording", "agent", "code", "attempts", "last", "next attempt", "reason")
# On a terminal the long texts share a column, so that 80 characters suffice.
TERMINAL_HEADER = ("code", "attempts", "last", "next attempt", "recording, agent: reason")


def main(argv: Sequence[str]) -> int:
    """Run the command; return 0, or 1 when the journal cannot be read."""
    parser = create_parser("failed", "List the failures that are set aside or retried, newest first.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--aside", action="store_true", help="only failures that are set aside")
    which.add_argument("--waiting", action="store_true", help="only failures that are retried automatically")
    parser.add_argument("--code", metavar="MUX-NNN", type=parse_code, help="only failures with this code")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: _list_failures(arguments))


def _list_failures(arguments: argparse.Namespace) -> int:
    journal = find_instance(load_configuration(arguments, needs_secrets=False).config).journal_path
    if not files.exists(journal):
        return fail(NO_JOURNAL.format(journal), [] if arguments.json else None)
    states = (SET_ASIDE,) if arguments.aside else (RETRY,) if arguments.waiting else (SET_ASIDE, RETRY)
    try:
        rows = [row for row in history.read_failures(journal, states) if arguments.code in (None, row.code)]
    except sqlite3.Error as error:
        return fail(f"cannot read the journal {journal}: {error}", [] if arguments.json else None)
    if arguments.json:
        show_json([{**vars(row), "remedy": help_for(row.code)} for row in rows])
    elif rows:
        if sys.stdout.isatty():
            show_table(TERMINAL_HEADER, map(_terminal_cells, rows))
        else:
            show_table(TABLE_HEADER, map(_table_cells, rows))
        show_remedies(row.code for row in rows)
    else:
        sys.stdout.write("no failures\n")
    return EXIT_OK


def _table_cells(row: TargetRecord) -> tuple[str, ...]:
    updated, next_attempt = format_datetime(row.updated), _next_attempt_text(row)
    return row.recording, row.agent, row.code, str(row.attempts), updated, next_attempt, row.reason


def _terminal_cells(row: TargetRecord) -> tuple[str, ...]:
    reason = f"{row.recording}, {row.agent}: {row.reason}"
    return row.code, str(row.attempts), format_ago(row.updated, time.time()), _next_attempt_text(row), reason


def _next_attempt_text(row: TargetRecord) -> str:
    now = time.time()
    if row.retry_at is None:
        return "set aside"
    return format_ago(row.retry_at, now) if row.retry_at > now else "at the next poll"
