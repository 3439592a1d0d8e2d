"""``failed``: what was set aside and what waits for another attempt, and why."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from collections.abc import Sequence

from muxer.commands.common import guarded, loaded, parser, refused, show_json, show_remedies, show_table
from muxer.commands.instance import NO_JOURNAL, look
from muxer.exits import EXIT_OK
from muxer.journal import ASIDE, RETRY
from muxer.monitoring import history
from muxer.monitoring.history import Row
from muxer.monitoring.words import ago, moment
from muxer.remedies import remedy

HEAD = ("recording", "agent", "code", "attempts", "last", "next try", "reason")
# On a terminal the long texts share a column, so that 80 characters are wide enough.
DRAWN = ("code", "attempts", "last", "next try", "recording, agent: reason")


def main(argv: Sequence[str]) -> int:
    """Given the arguments, list the failures; return 0, or 1 when there is no journal to read."""
    made = parser("failed", "What was set aside and what waits for another attempt, newest first.")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--aside", action="store_true", help="only what was set aside")
    which.add_argument("--waiting", action="store_true", help="only what waits for another attempt")
    made.add_argument("--code", metavar="MUX-NNN", help="only failures with this code")
    arguments = made.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    journal = look(loaded(arguments).config).journal
    if not journal.exists():
        return refused(NO_JOURNAL.format(journal), [] if arguments.json else None)
    states = (ASIDE,) if arguments.aside else (RETRY,) if arguments.waiting else (ASIDE, RETRY)
    try:
        rows = [row for row in history.failures(journal, states) if arguments.code in (None, row.code)]
    except sqlite3.Error as error:
        return refused(f"the journal {journal} cannot be read: {error}", [] if arguments.json else None)
    if arguments.json:
        show_json([{**vars(row), "remedy": remedy(row.code)} for row in rows])
    elif rows:
        show_table(*((DRAWN, map(_drawn, rows)) if sys.stdout.isatty() else (HEAD, map(_cells, rows))))
        show_remedies(row.code for row in rows)
    else:
        sys.stdout.write("nothing has failed\n")
    return EXIT_OK


def _cells(row: Row) -> tuple[str, ...]:
    return row.recording, row.agent, row.code, str(row.attempts), moment(row.updated), _again(row), row.reason


def _drawn(row: Row) -> tuple[str, ...]:
    told = f"{row.recording}, {row.agent}: {row.reason}"
    return row.code, str(row.attempts), ago(row.updated, time.time()), _again(row), told


def _again(row: Row) -> str:
    now = time.time()
    return "set aside" if row.retry_at is None else ago(row.retry_at, now) if row.retry_at > now else "at the next poll"
